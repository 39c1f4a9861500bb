// Draws what clients and nodes say to each other: single arrows, densities, the way of the message that matters, and the
// overview strip.

// Arrows that are wanted and in view, in order of time. Events of arrows are sorted; each is at one end of its arrow.
const foundRoom = new Int32Array(model.arrows.count)
function inView() {
  const { from, to, client, shown, count, longest, event } = model.arrows
  const { times } = model
  const last = view.to + longest
  let n = 0
  for (let i = lowerBound(view.from - longest); i < count && times[event[i]] <= last; i++) {
    if (shown[i] && to[i] >= view.from && from[i] <= view.to && layout.has[client[i]]) foundRoom[n++] = i
  }
  return foundRoom.subarray(0, n)
}

function lowerBound(time) {
  const { arrows, times } = model
  let low = 0, high = arrows.count
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[arrows.event[middle]] < time) low = middle + 1
    else high = middle
  }
  return low
}

function inkOf(i) {
  const kind = model.arrows.kind[i]
  return kind === DATA ? ink[`qos${model.arrows.qos[i]}`] : kind === CONTROL ? ink.control : ink.ack
}

function ends(i) {
  const { arrows } = model
  const lane = layout.lanes.get(arrows.client[i])
  if (!lane) return null
  const y = barY(lane)
  const node = edgeY(arrows.node[i], y)
  const gap = y < node ? 4 : -4
  return arrows.down[i] ? [x(arrows.from[i]), node, x(arrows.to[i]), y + gap] : [x(arrows.from[i]), y + gap, x(arrows.to[i]), node]
}

function drawArrows(found, dim) {
  // One path for each look: a canvas is quick with few strokes. What is thin or pale comes first.
  const looks = new Map()
  const { arrows } = model
  for (const i of found) {
    const key = `${arrows.kind[i] === DATA ? 2 : arrows.kind[i] === CONTROL ? 1 : 0}${arrows.qos[i]}${arrows.down[i]}${arrows.lost[i]}`
    if (!looks.has(key)) looks.set(key, [])
    looks.get(key).push(i)
  }
  const crowd = found.length
  const pale = Math.max(.3, Math.min(1, 260 / Math.max(crowd, 1)))
  const heads = crowd < 700
  for (const key of [...looks.keys()].sort()) {
    const list = looks.get(key)
    const data = key[0] === '2'
    ctx.strokeStyle = ctx.fillStyle = inkOf(list[0])
    ctx.lineWidth = data ? (crowd > 700 ? 1 : 1.35) : .9
    ctx.globalAlpha = (data ? Math.max(.42, pale) : key[0] === '1' ? .6 : .55 * pale + .15) * (dim ? .55 : 1)
    if (key[3] === '1') ctx.setLineDash([3, 3])
    ctx.beginPath()
    for (const i of list) {
      const [x1, y1, x2, y2] = ends(i)
      ctx.moveTo(x1, y1)
      if (arrows.lost[i]) ctx.lineTo(x1 + (x2 - x1) * .45, y1 + (y2 - y1) * .45)
      else ctx.lineTo(x2, y2)
    }
    ctx.stroke()
    ctx.setLineDash([])
    if (heads) {
      ctx.beginPath()
      for (const i of list) if (!arrows.lost[i]) head(...ends(i), data ? 5.5 : 4)
      ctx.fill()
    }
  }
  ctx.globalAlpha = 1
}

function head(x1, y1, x2, y2, reach) {
  const length = Math.hypot(x2 - x1, y2 - y1) || 1
  const ux = (x2 - x1) / length, uy = (y2 - y1) / length
  ctx.moveTo(x2, y2)
  ctx.lineTo(x2 - ux * reach - uy * reach * .45, y2 - uy * reach + ux * reach * .45)
  ctx.lineTo(x2 - ux * reach + uy * reach * .45, y2 - uy * reach - ux * reach * .45)
  ctx.closePath()
}

const BIN = 3
let density = { key: '', rows: new Map() }

// Messages by lane and by a few pixels of time, three numbers a bin: by QoS.
function countDensity(found) {
  const key = `${view.from} ${view.to} ${size.width} ${filterVersion}`
  if (density.key === key) return density.rows
  const { from, to, client, kind, qos, down } = model.arrows
  const bins = Math.ceil((size.width - size.gutter) / BIN) + 1
  const scale = (size.width - size.gutter) / (view.to - view.from) / BIN
  const byClient = []
  for (const i of found) {
    if (kind[i] !== DATA) continue
    const bin = Math.floor(((down[i] ? to[i] : from[i]) - view.from) * scale)
    if (bin < 0 || bin >= bins) continue
    const row = byClient[client[i]] ??= new Float64Array(bins * 3)
    row[bin * 3 + qos[i]]++
  }
  const rows = new Map()
  byClient.forEach((row, of) => {
    let most = 1
    for (let k = 0; k < row.length; k += 3) most = Math.max(most, row[k] + row[k + 1] + row[k + 2])
    rows.set(of, { row, most })
  })
  density = { key, rows }
  return rows
}

function drawDensity(found, visible, dim) {
  const rows = countDensity(found)
  const most = Math.max(2, ...[...rows.values()].map((of) => of.most))
  ctx.globalAlpha = dim ? .6 : .85
  for (const lane of visible) {
    const of = rows.get(lane.client)
    if (!of) continue
    const { row } = of
    const toward = laneY(lane) < bandTop() ? 1 : -1
    // A lane's own course is seen whatever the others do; how busy it is beside them, by a logarithm.
    const room = (lane.height * (lane.height < 40 ? .66 : .54) - 5) * (.4 + .6 * Math.log1p(of.most) / Math.log1p(most)) / of.most
    const start = barY(lane) + toward * (lane.height < 40 ? 3 : 5)
    for (let qos = 0; qos < 3; qos++) {
      ctx.fillStyle = ink[`qos${qos}`]
      for (let k = 0, px = size.gutter; k < row.length; k += 3, px += BIN) {
        const own = row[k + qos]
        if (!own) continue
        const under = (qos > 0 ? row[k] : 0) + (qos > 1 ? row[k + 1] : 0)
        const height = Math.max(1, own * room)
        ctx.fillRect(px, toward > 0 ? start + under * room : start - under * room - height, BIN, height)
      }
    }
  }
  ctx.globalAlpha = 1
}

// Names of messages beside their arrows, in lanes where there is room for most of them; that of the message that matters always.
function drawMessageLabels(found) {
  if (found.length > 1200) return
  const { arrows } = model
  const lanes = new Map()
  for (const i of found) {
    if (arrows.kind[i] !== DATA || model.events[arrows.event[i]][4] < 0) continue
    if (!lanes.has(arrows.client[i])) lanes.set(arrows.client[i], [])
    lanes.get(arrows.client[i]).push({ i, px: x(arrows.down[i] ? arrows.to[i] : arrows.from[i]) + 7 })
  }
  ctx.font = font(11)
  ctx.textBaseline = 'middle'
  ctx.textAlign = 'left'
  ctx.lineJoin = 'round'
  for (const [client, all] of lanes) {
    const lane = layout.lanes.get(client)
    if (lane.height < 40) continue
    all.sort((a, b) => a.px - b.px)
    const fits = []
    all.forEach((label, k) => {
      const [, , , , publisher, number] = model.events[arrows.event[label.i]]
      label.text = uidText(publisher, number)
      label.width = ctx.measureText(label.text).width
      label.on = focus.arrows.has(label.i)
      const free = label.px + label.width < Math.min(all[k + 1]?.px ?? Infinity, size.width) - 12
      if (free) fits.push(label)
      else if (label.on && label.px + label.width < size.width) fits.push(Object.assign(label, { boxed: true }))
    })
    const most = fits.filter((label) => !label.boxed).length * 2 > all.length
    for (const label of fits) if (most || label.on) drawLabel(label, lane)
  }
}

function drawLabel({ i, px, text, on, boxed, width }, lane) {
  const y = barY(lane) + (laneY(lane) < bandTop() ? 15 : -15)
  const wrong = on && focus.violation && !(model.arrows.down[i] && model.arrows.client[i] !== focus.violation.clients[0])
  ctx.fillStyle = ink.paper
  if (boxed) {
    ctx.globalAlpha = .9
    ctx.beginPath()
    ctx.roundRect(px - 3, y - 8, width + 6, 16, 4)
    ctx.fill()
    ctx.globalAlpha = 1
  } else {
    ctx.lineWidth = 3.5
    ctx.strokeStyle = ink.paper
    ctx.strokeText(text, px, y)
  }
  ctx.fillStyle = wrong ? ink.bad : inkOf(i)
  ctx.fillText(text, px, y)
}

// ---- what matters ----

function drawHighlights() {
  drawn.highlighted = drawn.missing = 0
  const violation = focus.violation
  const colour = violation ? ink.bad : ink.accent
  for (const i of focus.arrows) {
    const line = ends(i)
    if (!line || model.arrows.to[i] < view.from || model.arrows.from[i] > view.to) continue
    // Copies that came where they belong keep their own colour: what is wrong stands out.
    const right = !violation || (model.arrows.down[i] && model.arrows.client[i] !== violation.clients[0])
    glow(line, model.arrows.kind[i] === DATA ? (right && violation ? inkOf(i) : colour) : ink.ack, model.arrows.kind[i] === DATA)
    drawn.highlighted++
  }
  if (violation) {
    for (const [at] of violation.moments) plumb(at, focus.moment === at)
    for (const path of missingPaths(violation)) drawMissing(path)
  }
  if (focus.hover !== null && !focus.arrows.has(focus.hover)) {
    const line = ends(focus.hover)
    if (line) glow(line, inkOf(focus.hover), true)
  }
}

function glow([x1, y1, x2, y2], colour, wide) {
  if (wide) {
    ctx.strokeStyle = colour
    ctx.lineCap = 'round'
    for (const [width, alpha] of [[11, .12], [6, .2]]) {
      ctx.globalAlpha = alpha
      ctx.lineWidth = width
      ctx.beginPath()
      ctx.moveTo(x1, y1)
      ctx.lineTo(x2, y2)
      ctx.stroke()
    }
    ctx.lineCap = 'butt'
    ctx.globalAlpha = 1
  }
  ctx.strokeStyle = ctx.fillStyle = colour
  ctx.lineWidth = wide ? 2 : 1.2
  ctx.beginPath()
  ctx.moveTo(x1, y1)
  ctx.lineTo(x2, y2)
  ctx.stroke()
  ctx.beginPath()
  head(x1, y1, x2, y2, wide ? 8 : 5)
  ctx.fill()
}

function plumb(at, active) {
  if (at < view.from || at > view.to) return
  const px = Math.round(x(at)) + .5
  ctx.strokeStyle = ink.bad
  ctx.globalAlpha = active ? .8 : .22
  ctx.lineWidth = active ? 1.5 : 1
  ctx.beginPath()
  ctx.moveTo(px, AXIS)
  ctx.lineTo(px, size.height)
  ctx.stroke()
  ctx.globalAlpha = 1
}

// A delivery that is owed and never came: it waits at the node until its client can take it, then leaves and ends nowhere.
function missingPaths(violation) {
  if (!['S1', 'S9b', 'S11'].includes(violation.check) || !violation.clients.length) return []
  const { arrows } = model
  const journey = violation.uid ? arrows.byUid.get(uidKey(...violation.uid)) ?? [] : []
  const client = violation.clients[0]
  const publish = journey.find((i) => !arrows.down[i])
  if (publish === undefined || (violation.check !== 'S11' && journey.some((i) => arrows.down[i] && arrows.client[i] === client))) return []
  const accepted = arrows.to[publish]
  const conns = [...model.conns.values()].filter((c) => c.client === client && c.up !== null && c.to > accepted)
  const due = conns.length ? Math.max(accepted, conns[0].up) : null
  return [{ client, node: arrows.node[publish], accepted, due }]
}

function drawMissing({ client, node, accepted, due }) {
  const lane = layout.lanes.get(client)
  if (!lane) return
  const y = barY(lane)
  const edge = edgeY(node, y)
  const toward = y > edge ? 1 : -1
  const x1 = x(accepted), x2 = x(due ?? model.end)
  const tip = y - toward * Math.min(lane.height * .3, 22)
  const slope = due === null ? 0 : Math.max(2, Math.min(26, (size.width - size.gutter) * 4e6 / (view.to - view.from)))
  const path = () => {
    ctx.beginPath()
    ctx.moveTo(x1, edge + toward * 4)
    ctx.lineTo(x2, edge + toward * 4)
    if (due !== null) ctx.lineTo(x2 + slope, tip)
  }
  ctx.strokeStyle = ink.bad
  ctx.lineJoin = 'round'
  ctx.globalAlpha = .16
  ctx.lineWidth = 9
  path()
  ctx.stroke()
  ctx.globalAlpha = 1
  ctx.lineWidth = 2
  ctx.setLineDash([6, 5])
  path()
  ctx.stroke()
  ctx.setLineDash([])
  if (due === null) return
  const px = x2 + slope
  ctx.fillStyle = ink.paper
  ctx.beginPath()
  ctx.arc(px, tip, 9, 0, 7)
  ctx.fill()
  ctx.strokeStyle = ink.bad
  ctx.lineWidth = 1.6
  ctx.stroke()
  cross(px, tip, 3.6, ink.bad)
  drawn.missing++
  if (px < size.gutter || px > size.width) return
  ctx.font = font(11.5, 620)
  const text = 'never came'
  const width = ctx.measureText(text).width
  const left = px + 16 + width < size.width ? px + 15 : px - 15 - width
  ctx.textAlign = 'left'
  ctx.textBaseline = 'middle'
  ctx.lineWidth = 4
  ctx.strokeStyle = ink.paper
  ctx.strokeText(text, left, tip)
  ctx.fillStyle = ink.bad
  ctx.fillText(text, left, tip)
}

// ---- overview ----

const overview = document.getElementById('overview')
const over = overview.getContext('2d')
let overviewBins = null

function measureOverview() {
  const ratio = window.devicePixelRatio || 1
  const box = overview.getBoundingClientRect()
  overview.width = Math.round(box.width * ratio)
  overview.height = Math.round(box.height * ratio)
  over.setTransform(ratio, 0, 0, ratio, 0, 0)
  overviewBins = null
}

const overX = (time) => size.gutter + time / model.end * (size.width - size.gutter - 10)
const overTime = (px) => (px - size.gutter) / (size.width - size.gutter - 10) * model.end

function binOverview() {
  const { arrows } = model
  const count = Math.max(1, Math.floor((size.width - size.gutter - 10) / 3))
  const bins = [new Float64Array(count), new Float64Array(count), new Float64Array(count)]
  for (let i = 0; i < arrows.count; i++) {
    if (arrows.kind[i] === DATA && arrows.shown[i]) bins[arrows.qos[i]][Math.min(count - 1, Math.floor(arrows.from[i] / model.end * count))]++
  }
  let most = 1
  for (let b = 0; b < count; b++) most = Math.max(most, bins[0][b] + bins[1][b] + bins[2][b])
  overviewBins = { bins, count, most }
}

function drawOverview() {
  const width = size.width, height = overview.getBoundingClientRect().height
  if (!overviewBins) binOverview()
  over.clearRect(0, 0, width, height)
  over.fillStyle = ink.surface
  over.fillRect(0, 0, width, height)
  over.font = font(11.5)
  over.fillStyle = ink.mute
  over.textBaseline = 'middle'
  over.fillText('whole run', 16, height / 2)
  if (show.faults) {
    for (const fault of model.faults) {
      over.fillStyle = fault.down ? ink['down-wash'] : ink['fault-wash']
      over.fillRect(overX(fault.from), 0, Math.max(2, overX(fault.to) - overX(fault.from)), height)
      over.fillStyle = fault.down ? ink.down : ink.fault
      over.fillRect(overX(fault.from), height - 3, Math.max(2, overX(fault.to) - overX(fault.from)), 3)
    }
  }
  const { bins, count, most } = overviewBins
  for (let b = 0; b < count; b++) {
    let y = height - 7
    for (let qos = 0; qos < 3; qos++) {
      const own = bins[qos][b]
      if (!own) continue
      const all = bins[0][b] + bins[1][b] + bins[2][b]
      const h = Math.max(1, Math.sqrt(all / most) * (height - 20) * own / all)
      over.fillStyle = ink[`qos${qos}`]
      over.globalAlpha = .8
      over.fillRect(size.gutter + b * 3, y - h, 2, h)
      y -= h
    }
  }
  over.globalAlpha = 1
  over.fillStyle = ink.bad
  for (const [at] of focus.violation?.moments ?? []) over.fillRect(overX(at) - 1, 0, 2, height)
  const a = Math.max(size.gutter - 1, overX(view.from)), b = Math.min(width - 6, overX(view.to))
  over.fillStyle = ink.paper
  over.globalAlpha = .72
  over.fillRect(size.gutter - 2, 0, Math.max(0, a - size.gutter + 2), height)
  over.fillRect(b, 0, width - b, height)
  over.globalAlpha = 1
  over.strokeStyle = ink.accent
  over.lineWidth = 1.5
  over.beginPath()
  over.roundRect(a - 1, 1.5, Math.max(b - a, 4) + 2, height - 3, 5)
  over.stroke()
}
