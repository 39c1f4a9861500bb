// Draws lanes, arrows and faults on a canvas. What is out of view is not visited; when there is too much for single
// arrows each lane has a density instead, so that a frame costs about the same at every zoom.

const canvas = document.getElementById('lanes')
const ctx = canvas.getContext('2d')
const view = { from: 0, to: model.end, scroll: 0 }
const show = { qos0: true, qos1: true, qos2: true, acks: false, control: true, pings: false, faults: true }
const focus = { arrows: new Set(), violation: null, moment: null, hover: null }
const drawn = { arrows: 0, dense: false, lanes: 0, missing: 0, highlighted: 0 }
const AXIS = 34
const SINGLE_ARROWS_MAX = 2600
let size = { width: 0, height: 0, gutter: 140 }
let ink = {}
let layout = { lanes: new Map(), has: new Uint8Array(0), band: 0, natural: 0, height: 0 }
let laneFilter = null
let filterVersion = 0

function readInks() {
  const style = getComputedStyle(document.documentElement)
  const names = ['paper', 'surface', 'band', 'line', 'faint', 'ink', 'soft', 'mute', 'qos0', 'qos1', 'qos2', 'ack', 'control', 'session', 'session-off',
    'subscription', 'fault', 'fault-wash', 'down', 'down-wash', 'bad', 'bad-wash', 'good', 'accent', 'sans']
  ink = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]))
  ink.hatch = {}
}

// Who mostly sends stands above the broker, who mostly receives beneath it: messages run down the page.
const sides = (() => {
  const balance = new Map()
  const { arrows } = model
  for (let i = 0; i < arrows.count; i++) {
    if (arrows.kind[i] === DATA) balance.set(arrows.client[i], (balance.get(arrows.client[i]) ?? 0) + (arrows.down[i] ? -1 : 1))
  }
  return run.clients.map((_, ix) => (balance.get(ix) ?? 0) > 0)
})()

const nodeHeight = () => 34 + (run.shards > 1 ? Math.min(run.shards, 8) * 13 + 5 : 0)

function measure() {
  const ratio = window.devicePixelRatio || 1
  const box = canvas.getBoundingClientRect()
  size.width = box.width
  size.height = box.height
  canvas.width = Math.round(box.width * ratio)
  canvas.height = Math.round(box.height * ratio)
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0)
  ctx.font = font(12.5, 560)
  const widest = Math.max(60, ...run.clients.map((c) => ctx.measureText(c.name).width))
  size.gutter = Math.round(Math.min(widest + 34, box.width < 760 ? 118 : 190))
  arrange()
}

const font = (px, weight = 400) => `${weight} ${px}px ${ink.sans}`

function arrange() {
  const wanted = run.clients.map((_, ix) => ix).filter((ix) => !laneFilter || laneFilter.has(ix))
  const above = wanted.filter((ix) => sides[ix])
  const below = wanted.filter((ix) => !sides[ix])
  const tight = wanted.length * 40 > size.height - AXIS
  if (tight && run.violations.length) {
    // Those whom violations are about stand next to the broker, or one would have to look for them.
    const concerned = new Set(run.violations.flatMap((violation) => violation.clients))
    above.sort((a, b) => concerned.has(a) - concerned.has(b) || a - b)
    below.sort((a, b) => concerned.has(b) - concerned.has(a) || a - b)
  }
  const band = run.nodes * (nodeHeight() + 6) + 18
  const room = size.height - AXIS - band - 12
  const height = Math.max(26, Math.min(124, Math.floor(room / Math.max(wanted.length, 1))))
  let y = AXIS + 6
  const lanes = new Map()
  for (const ix of above) { lanes.set(ix, { client: ix, top: y, height, up: true }); y += height }
  const natural = y
  y += band
  for (const ix of below) { lanes.set(ix, { client: ix, top: y, height, up: false }); y += height }
  const has = new Uint8Array(run.clients.length)
  for (const ix of lanes.keys()) has[ix] = 1
  layout = { lanes, has, band, natural, height: y + 6 }
  view.scroll = Math.max(0, Math.min(view.scroll, layout.height - size.height))
}

// The broker stays in view while lanes scroll beneath it.
const bandTop = () => Math.max(AXIS, Math.min(layout.natural - view.scroll, size.height - layout.band))
const nodeTop = (node) => bandTop() + 9 + node * (nodeHeight() + 6)
const laneY = (lane) => lane.top - view.scroll
const barY = (lane) => Math.round(laneY(lane) + lane.height * (lane.height < 40 ? (lane.up ? .34 : .66) : lane.up ? .46 : .54))
const x = (time) => size.gutter + (time - view.from) / (view.to - view.from) * (size.width - size.gutter)
const timeAt = (px) => view.from + (px - size.gutter) / (size.width - size.gutter) * (view.to - view.from)
// The edge of a node that faces a lane, wherever scrolling has put them.
const edgeY = (node, y) => y < nodeTop(node) ? nodeTop(node) : nodeTop(node) + nodeHeight()

let frame = 0
function redraw() {
  if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(); drawOverview() })
}

function draw() {
  ctx.clearRect(0, 0, size.width, size.height)
  ctx.fillStyle = ink.paper
  ctx.fillRect(0, 0, size.width, size.height)
  const ticks = axisTicks()
  drawGrid(ticks)
  const visible = [...layout.lanes.values()].filter((lane) => laneY(lane) + lane.height > AXIS && laneY(lane) < size.height)
  drawn.lanes = layout.lanes.size
  ctx.save()
  clipTo(size.gutter, AXIS, size.width - size.gutter, size.height - AXIS)
  for (const lane of visible) drawLaneGround(lane)
  if (show.faults) for (const fault of model.faults) if (fault.client !== NONE) drawFault(fault)
  const found = inView()
  // Where lanes are narrow an arrow crosses many of them.
  drawn.dense = found.length > (visible.length > 24 ? SINGLE_ARROWS_MAX / 3 : SINGLE_ARROWS_MAX)
  drawn.arrows = found.length
  const dim = focus.arrows.size > 0
  if (drawn.dense) drawDensity(found, visible, dim)
  else drawArrows(found, dim)
  for (const lane of visible) drawSubscriptions(lane)
  for (const span of model.sessions) drawSession(span)
  for (const mark of model.marks) drawMark(mark)
  drawFaultLabels(ink.paper)
  ctx.restore()
  drawBand()
  ctx.save()
  clipTo(size.gutter, AXIS, size.width - size.gutter, size.height - AXIS)
  drawHighlights()
  if (!drawn.dense) drawMessageLabels(found)
  ctx.restore()
  drawNames(visible)
  drawScrollbar()
  drawAxis(ticks)
}

function drawScrollbar() {
  if (layout.height <= size.height) return
  const room = size.height - AXIS - 8
  const length = Math.max(28, room * size.height / layout.height)
  ctx.fillStyle = ink.mute
  ctx.globalAlpha = .45
  ctx.beginPath()
  ctx.roundRect(size.width - 8, AXIS + 4 + (room - length) * view.scroll / (layout.height - size.height), 4, length, 2)
  ctx.fill()
  ctx.globalAlpha = 1
}

function clipTo(left, top, width, height) {
  ctx.beginPath()
  ctx.rect(left, top, width, height)
  ctx.clip()
}

// ---- time ----

function axisTicks() {
  const span = view.to - view.from
  const wanted = Math.max(2, Math.floor((size.width - size.gutter) / 110))
  const raw = span / wanted
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw)
  const decimals = Math.max(0, Math.min(9, -Math.floor(Math.log10(step / 1e9) + 1e-9)))
  const ticks = []
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) ticks.push(t)
  return { ticks, step, decimals }
}

function drawGrid({ ticks }) {
  ctx.strokeStyle = ink.faint
  ctx.lineWidth = 1
  ctx.beginPath()
  for (const t of ticks) {
    const px = Math.round(x(t)) + .5
    ctx.moveTo(px, AXIS)
    ctx.lineTo(px, size.height)
  }
  ctx.stroke()
  for (const phase of model.phases) {
    if (phase.at < view.from || phase.at > view.to) continue
    ctx.strokeStyle = ink.mute
    ctx.setLineDash([2, 4])
    ctx.beginPath()
    ctx.moveTo(Math.round(x(phase.at)) + .5, AXIS)
    ctx.lineTo(Math.round(x(phase.at)) + .5, size.height)
    ctx.stroke()
    ctx.setLineDash([])
  }
}

function drawAxis({ ticks, decimals }) {
  ctx.fillStyle = ink.surface
  ctx.fillRect(0, 0, size.width, AXIS)
  ctx.strokeStyle = ink.line
  ctx.beginPath()
  ctx.moveTo(0, AXIS - .5)
  ctx.lineTo(size.width, AXIS - .5)
  ctx.stroke()
  ctx.textBaseline = 'middle'
  ctx.font = font(11.5)
  ctx.fillStyle = ink.mute
  ctx.textAlign = 'left'
  ctx.fillText('time', 16, AXIS / 2)
  const taken = []
  drawPins(taken)
  ctx.font = font(11.5)
  ctx.textAlign = 'center'
  const put = (text, px, colour) => {
    const half = ctx.measureText(text).width / 2 + 5
    px = Math.min(px, size.width - half)
    if (px - half < size.gutter - 20 || taken.some(([a, b]) => px + half > a && px - half < b)) return
    taken.push([px - half, px + half])
    ctx.fillStyle = colour
    ctx.fillText(text, px, AXIS / 2)
  }
  for (const phase of model.phases) if (phase.at >= view.from && phase.at <= view.to) put(phase.name, x(phase.at), ink.soft)
  for (const t of ticks) put(`${(t / 1e9).toFixed(decimals)} s`, x(t), ink.mute)
}

// Numbered pins of the moments of the story that is told; those too near to each other share one.
function pins() {
  const violation = focus.violation
  if (!violation) return []
  const out = []
  violation.moments.forEach(([at], i) => {
    const px = x(at)
    const last = out[out.length - 1]
    if (last && px - last.px < 20) Object.assign(last, { to: i + 1, ats: [...last.ats, at] })
    else out.push({ px, from: i + 1, to: i + 1, ats: [at] })
  })
  return out.filter((pin) => pin.px >= size.gutter - 1 && pin.px <= size.width + 1)
}

function drawPins(taken) {
  for (const pin of pins()) {
    const text = pin.from === pin.to ? String(pin.from) : `${pin.from}–${pin.to}`
    ctx.font = font(11, 650)
    const half = Math.max(9, ctx.measureText(text).width / 2 + 6)
    const px = Math.max(size.gutter + half, Math.min(pin.px, size.width - half - 2))
    ctx.fillStyle = ink.bad
    ctx.beginPath()
    ctx.roundRect(px - half, AXIS / 2 - 9, half * 2, 18, 9)
    ctx.fill()
    ctx.beginPath()
    ctx.moveTo(pin.px - 4, AXIS / 2 + 8)
    ctx.lineTo(pin.px + 4, AXIS / 2 + 8)
    ctx.lineTo(pin.px, AXIS - 1)
    ctx.fill()
    ctx.fillStyle = ink.surface
    ctx.textAlign = 'center'
    ctx.textBaseline = 'middle'
    ctx.fillText(text, px, AXIS / 2 + .5)
    taken.push([px - half - 3, px + half + 3])
  }
}

// ---- lanes ----

function drawLaneGround(lane) {
  if (focus.violation?.clients[0] === lane.client) {
    ctx.fillStyle = ink['bad-wash']
    ctx.fillRect(size.gutter, laneY(lane), size.width, lane.height)
  }
  ctx.strokeStyle = ink.faint
  ctx.lineWidth = 1
  ctx.beginPath()
  if (lane.height >= 34) {
    const edge = Math.round(laneY(lane) + (lane.up ? 0 : lane.height)) + .5
    ctx.moveTo(size.gutter, edge)
    ctx.lineTo(size.width, edge)
  }
  ctx.moveTo(size.gutter, barY(lane) + .5)
  ctx.lineTo(size.width, barY(lane) + .5)
  ctx.stroke()
}

function drawNames(visible) {
  ctx.fillStyle = ink.paper
  ctx.fillRect(0, AXIS, size.gutter, size.height - AXIS)
  ctx.save()
  clipTo(0, AXIS, size.gutter, size.height - AXIS)
  ctx.textBaseline = 'middle'
  ctx.textAlign = 'left'
  for (const lane of visible) {
    const spec = run.clients[lane.client]
    const concerned = focus.violation?.clients.includes(lane.client)
    const y = barY(lane)
    ctx.font = font(12.5, 580)
    ctx.fillStyle = concerned ? ink.bad : ink.ink
    const detail = spec.id !== spec.name ? spec.id : spec.version
    const two = lane.height >= 44
    ctx.fillText(fitted(spec.name, size.gutter - 26), 16, two ? y - 7 : y)
    if (two) {
      ctx.font = font(11)
      ctx.fillStyle = ink.mute
      ctx.fillText(fitted(detail, size.gutter - 26), 16, y + 8)
    }
  }
  const top = bandTop()
  ctx.fillStyle = ink.band
  ctx.fillRect(0, top + 3, size.gutter, layout.band - 6)
  for (let node = 0; node < run.nodes; node++) {
    ctx.font = font(12.5, 640)
    ctx.fillStyle = ink.ink
    ctx.fillText(nodeName(node), 16, nodeTop(node) + 17)
    ctx.font = font(10.5)
    ctx.fillStyle = ink.mute
    for (let shard = 0; shard < shardRows(); shard++) ctx.fillText(`shard ${shard}`, 24, shardY(node, shard) + 6.5)
  }
  ctx.restore()
  ctx.strokeStyle = ink.line
  ctx.beginPath()
  ctx.moveTo(size.gutter - .5, AXIS)
  ctx.lineTo(size.gutter - .5, size.height)
  ctx.stroke()
}

const shardRows = () => run.shards > 1 ? Math.min(run.shards, 8) : 0
const shardY = (node, shard) => nodeTop(node) + 31 + shard * 13

function fitted(text, width) {
  if (ctx.measureText(text).width <= width) return text
  let end = text.length
  while (end > 1 && ctx.measureText(`${text.slice(0, end)}…`).width > width) end--
  return `${text.slice(0, end)}…`
}

function span(from, to) {
  return [Math.max(size.gutter - 4, Math.min(x(from), size.width + 4)), Math.max(size.gutter - 4, Math.min(x(to), size.width + 4))]
}

function drawSession(session) {
  const lane = layout.lanes.get(session.client)
  if (!lane || session.to < view.from || session.from > view.to) return
  const y = barY(lane)
  if (y < AXIS - 10 || y > size.height + 10) return
  const [a, b] = span(session.from, session.to)
  const thick = lane.height < 40 ? 4 : 7
  ctx.fillStyle = ink.paper
  ctx.beginPath()
  ctx.roundRect(a, y - thick / 2 - 1, Math.max(b - a, 2), thick + 2, thick / 2 + 1)
  ctx.fill()
  ctx.beginPath()
  ctx.roundRect(a, y - thick / 2, Math.max(b - a, 2), thick, thick / 2)
  if (session.on) {
    ctx.fillStyle = ink.session
    ctx.fill()
  } else {
    ctx.fillStyle = hatch('session-off')
    ctx.fill()
    if (session.expired && x(session.to) <= size.width) {
      ctx.strokeStyle = ink.mute
      ctx.lineWidth = 1.5
      ctx.beginPath()
      ctx.moveTo(b, y - thick)
      ctx.lineTo(b, y + thick)
      ctx.stroke()
    }
  }
  // A connection that its client did not end itself has a cross at its end.
  if (session.on && session.by > 0 && session.to >= view.from && session.to <= view.to) cross(x(session.to), y, 3.5, session.by === 1 ? ink.bad : ink.fault)
}

function cross(px, y, reach, colour) {
  ctx.strokeStyle = colour
  ctx.lineWidth = 1.8
  ctx.beginPath()
  ctx.moveTo(px - reach, y - reach)
  ctx.lineTo(px + reach, y + reach)
  ctx.moveTo(px + reach, y - reach)
  ctx.lineTo(px - reach, y + reach)
  ctx.stroke()
}

function hatch(name) {
  if (ink.hatch[name]) return ink.hatch[name]
  const tile = document.createElement('canvas')
  tile.width = tile.height = 6
  const t = tile.getContext('2d')
  t.strokeStyle = ink[name]
  t.lineWidth = 1.6
  for (const shift of [-6, 0, 6]) {
    t.beginPath()
    t.moveTo(shift - 1, 7)
    t.lineTo(shift + 7, -1)
    t.stroke()
  }
  return ink.hatch[name] = ctx.createPattern(tile, 'repeat')
}

const subscriptionsOf = (() => {
  const byClient = new Map()
  for (const s of model.subscriptions) byClient.set(s.client, [...(byClient.get(s.client) ?? []), s])
  return byClient
})()

// Thin marks on the side of a lane that looks away from the broker, with the filter where there is room.
function drawSubscriptions(lane) {
  const spans = subscriptionsOf.get(lane.client) ?? []
  const away = laneY(lane) < bandTop() ? -1 : 1
  const taken = lane.labels ??= []
  for (const s of spans) {
    if (s.to < view.from || s.from > view.to || s.row > 2) continue
    const y = barY(lane) + away * ((lane.height < 40 ? 6 : 9) + s.row * 4)
    if (lane.height < 40 && s.row > 0) continue
    const [a, b] = span(s.from, s.to)
    ctx.fillStyle = ink.subscription
    ctx.globalAlpha = focus.violation?.filter === s.filter ? 1 : .7
    ctx.fillRect(a, y - .75, Math.max(b - a, 2), 1.5)
    if (x(s.from) >= size.gutter) ctx.fillRect(a, y - 2.5, 1.5, 5)
    ctx.globalAlpha = 1
    if (s.row === 0 && lane.height >= 48) {
      ctx.font = font(11)
      const more = spans.filter((o) => o !== s && o.to > s.from && o.from < s.to).length
      const text = fitted(`${nameText(s.filter)} q${s.qos}${more ? ` +${more}` : ''}`, 240)
      const width = ctx.measureText(text).width
      const px = Math.max(a + 5, size.gutter + 8)
      if (b - px < width + 6 || taken.some(([from, to]) => px < to && px + width > from)) continue
      taken.push([px, px + width + 10])
      const rows = Math.min(2, Math.max(0, ...spans.map((o) => o.row)))
      ctx.fillStyle = ink.subscription
      ctx.textAlign = 'left'
      ctx.textBaseline = 'middle'
      ctx.lineWidth = 3.5
      ctx.lineJoin = 'round'
      ctx.strokeStyle = ink.paper
      ctx.strokeText(text, px, barY(lane) + away * (19 + rows * 4))
      ctx.fillText(text, px, barY(lane) + away * (19 + rows * 4))
    }
  }
  lane.labels = null
}

function drawMark(mark) {
  const lane = layout.lanes.get(mark.client)
  if (!lane || mark.at < view.from || mark.at > view.to) return
  ctx.fillStyle = mark.bad ? ink.bad : ink.fault
  ctx.beginPath()
  ctx.arc(x(mark.at), barY(lane), 4, 0, 7)
  ctx.fill()
}

function drawFault(fault) {
  const lane = layout.lanes.get(fault.client)
  if (!lane || fault.to < view.from || fault.from > view.to || laneY(lane) + lane.height < AXIS || laneY(lane) > size.height) return
  faultRect(fault, laneY(lane) + 2, lane.height - 3, lane.up ? 'top' : 'bottom', lane)
}

const faultLabels = []

function faultRect(fault, top, height, labelAt, lane) {
  const [a, b] = span(fault.from, Math.max(fault.to, fault.from))
  const down = fault.down
  ctx.fillStyle = ink[down ? 'down-wash' : 'fault-wash']
  ctx.fillRect(a, top, Math.max(b - a, 2), height)
  ctx.fillStyle = down ? ink.down : ink.fault
  ctx.globalAlpha = .75
  if (x(fault.from) >= size.gutter) ctx.fillRect(a, top, 1.5, height)
  if (fault.to < model.end && x(fault.to) <= size.width && b - a > 3) ctx.fillRect(b - 1.5, top, 1.5, height)
  ctx.globalAlpha = 1
  ctx.font = font(11, 560)
  const width = ctx.measureText(fault.label).width
  const px = Math.max(a + 6, size.gutter + 6)
  if ((b - px < width + 6 && !fault.instant) || (lane && height < 34)) return
  if (lane) (lane.labels ??= []).push([px - 4, px + width + 8])
  faultLabels.push([fault.label, px, labelAt === 'top' ? top + 10 : top + height - 9, down ? ink.down : ink.fault])
}

// Over the arrows, or they would be struck through.
function drawFaultLabels(ground) {
  ctx.font = font(11, 560)
  ctx.textAlign = 'left'
  ctx.textBaseline = 'middle'
  ctx.lineWidth = 3
  ctx.lineJoin = 'round'
  ctx.strokeStyle = ground
  for (const [text, px, y, colour] of faultLabels.splice(0)) {
    ctx.globalAlpha = .75
    ctx.strokeText(text, px, y)
    ctx.globalAlpha = 1
    ctx.fillStyle = colour
    ctx.fillText(text, px, y)
  }
}

// The nodes with their shards, over what scrolls beneath them.
function drawBand() {
  const top = bandTop()
  ctx.fillStyle = ink.paper
  ctx.fillRect(0, top, size.width, layout.band)
  ctx.fillStyle = ink.band
  ctx.fillRect(0, top + 3, size.width, layout.band - 6)
  ctx.save()
  clipTo(size.gutter, AXIS, size.width - size.gutter, size.height - AXIS)
  for (let node = 0; node < run.nodes; node++) {
    ctx.fillStyle = ink.surface
    ctx.fillRect(size.gutter, nodeTop(node), size.width, nodeHeight())
    ctx.strokeStyle = ink.line
    ctx.strokeRect(size.gutter - 2, nodeTop(node) + .5, size.width + 4, nodeHeight() - 1)
    for (let shard = 0; shard < shardRows(); shard++) {
      ctx.fillStyle = ink.line
      ctx.fillRect(size.gutter, shardY(node, shard) + 6, size.width, 1)
    }
  }
  if (show.faults) for (const fault of model.faults) drawNodeFault(fault)
  drawFaultLabels(ink.surface)
  ctx.restore()
}

function drawNodeFault(fault) {
  if (fault.node === NONE || fault.node >= run.nodes || fault.to < view.from || fault.from > view.to) return
  if (fault.shard !== NONE && fault.shard < shardRows()) {
    const y = shardY(fault.node, fault.shard)
    const [a, b] = span(fault.from, fault.to)
    ctx.fillStyle = ink['fault-wash']
    ctx.fillRect(a, y + 1, Math.max(b - a, 2), 11)
    ctx.fillStyle = ink.fault
    ctx.fillRect(a, y + 1, 1.5, 11)
    ctx.font = font(10, 560)
    const px = Math.max(a + 5, size.gutter + 5)
    if (b - px > ctx.measureText(fault.label).width + 4) {
      ctx.textAlign = 'left'
      ctx.textBaseline = 'middle'
      ctx.fillText(fault.label, px, y + 7)
    }
    return
  }
  faultRect(fault, nodeTop(fault.node) + 1, Math.min(nodeHeight() - 2, 28), 'top')
}
