// What people do with the page: zoom, move, search, choose; and the start of it all.

const card = document.getElementById('card')
const search = document.getElementById('search')
const SHORTEST = 2000

// ---- the view ----

function setView(from, to) {
  const length = Math.max(SHORTEST, Math.min(to - from, model.end * 1.04))
  const middle = (from + to) / 2
  const margin = length * .02
  from = Math.max(-margin, Math.min(middle - length / 2, model.end + margin - length))
  Object.assign(view, { from, to: from + length })
  redraw()
}

function fit() {
  setView(-model.end * .012, model.end * 1.02)
}

// What happens at all: most runs end with a while in which nothing does, so that what is owed can come.
function fitWhatHappens() {
  let last = 0
  run.events.forEach((event, i) => { if (event[0] !== CALM && event[0] !== QUIESCE) last = model.times[i] })
  if (last > 0 && last < model.end * .6) setView(-last * .03, last * 1.12)
  else fit()
}

function zoom(factor, around = (view.from + view.to) / 2) {
  const length = Math.max(SHORTEST, (view.to - view.from) * factor)
  const share = (around - view.from) / (view.to - view.from)
  setView(around - length * share, around + length * (1 - share))
}

function move(share) {
  const length = view.to - view.from
  setView(view.from + length * share, view.to + length * share)
}

function scrollLanes(by) {
  view.scroll = Math.max(0, Math.min(view.scroll + by, Math.max(0, layout.height - size.height)))
  redraw()
}

// A moment is shown with what is around it; who is near enough already is not moved.
function jump(at) {
  focus.moment = at
  const length = Math.min(view.to - view.from, Math.max(model.end / 400, 60e6))
  glide(at - length / 2, at + length / 2)
  markMoment(at)
}

let gliding = 0
function glide(from, to) {
  cancelAnimationFrame(gliding)
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return setView(from, to)
  const start = performance.now(), a = view.from, b = view.to
  const step = (now) => {
    const t = Math.min(1, (now - start) / 260)
    const eased = 1 - (1 - t) ** 3
    // Lengths are mixed by their logarithm, so that zooming feels even.
    const length = Math.exp(Math.log(b - a) * (1 - eased) + Math.log(to - from) * eased)
    const middle = (a + b) / 2 * (1 - eased) + (from + to) / 2 * eased
    setView(middle - length / 2, middle + length / 2)
    if (t < 1) gliding = requestAnimationFrame(step)
  }
  gliding = requestAnimationFrame(step)
}

// ---- what is chosen ----

function choose(violation) {
  focus.violation = violation
  focus.arrows = new Set((violation?.journey ?? []).map((event) => model.arrows.byEvent.get(event)).filter((i) => i !== undefined))
  redraw()
}

// From the first thing that a violation is about to its last, with room around it.
function showViolation(violation = focus.violation ?? run.violations[0]) {
  choose(violation)
  const ats = violation.moments.map(([at]) => at)
  for (const i of focus.arrows) ats.push(model.arrows.from[i], model.arrows.to[i])
  const from = Math.min(...ats, violation.at), to = Math.max(...ats, from + 1e6)
  const margin = (to - from) * .08
  focus.moment = null
  for (const client of violation.clients.slice(0, 1)) reveal(client)
  glide(from - margin, to + margin)
  openTab('story')
}

function reveal(client) {
  const lane = layout.lanes.get(client)
  if (!lane) return
  const top = lane.top - view.scroll
  if (top < AXIS || top + lane.height > size.height) scrollLanes(top - size.height / 2)
}

function pick(i) {
  picked = i
  const uid = model.arrows.uid[i]
  const violation = run.violations.find((v) => v.journey.includes(model.arrows.event[i]))
  if (violation) choose(violation)
  else {
    focus.violation = null
    focus.arrows = new Set(uid === null ? [i] : model.arrows.byUid.get(uid))
  }
  openTab('message')
  redraw()
}

function clear() {
  if (search.value) { search.value = ''; applyFilter() }
  picked = null
  focus.moment = null
  choose(null)
  markMoment(null)
}

function stepMoment(by) {
  const violation = focus.violation ?? run.violations[0]
  const ats = violation ? violation.moments.map(([at]) => at) : model.faults.map((fault) => fault.from)
  if (!ats.length) return
  if (violation) { if (tab !== 'story') openTab('story'); choose(violation) }
  const at = ats.indexOf(focus.moment)
  jump(ats[at < 0 ? (by > 0 ? 0 : ats.length - 1) : (at + by + ats.length) % ats.length])
}

// ---- filter ----

function applyFilter() {
  const { arrows } = model
  const query = search.value.trim().toLowerCase()
  const topics = run.names.map((name) => name.toLowerCase().includes(query))
  const clients = run.clients.map((c) => c.name.toLowerCase().includes(query) || c.id.toLowerCase().includes(query))
  const uids = new Map()
  const uidMatches = (i) => {
    const uid = arrows.uid[i]
    if (uid === null) return false
    if (!uids.has(uid)) {
      const e = model.events[arrows.event[i]]
      const text = uidText(e[4], e[5]).toLowerCase()
      // A whole name finds one message, not all that begin like it.
      uids.set(uid, query.includes('#') ? text === query || (query.endsWith('#') && text.startsWith(query)) : text.includes(query))
    }
    return uids.get(uid)
  }
  let found = 0
  const lanes = new Set()
  for (let i = 0; i < arrows.count; i++) {
    const kind = arrows.kind[i]
    const wanted = kind === DATA ? show[`qos${arrows.qos[i]}`] : kind === ACKS ? show.acks : kind === PING ? show.pings : show.control
    const match = !query || clients[arrows.client[i]] || (kind === DATA && ((arrows.topic[i] >= 0 && topics[arrows.topic[i]]) || uidMatches(i)))
    arrows.shown[i] = wanted && match ? 1 : 0
    if (match && kind === DATA) { found++; lanes.add(arrows.client[i]) }
  }
  clients.forEach((match, ix) => { if (match) lanes.add(ix) })
  laneFilter = query && lanes.size ? lanes : null
  document.getElementById('matches').value = query ? grouped(found) : ''
  overviewBins = null
  filterVersion++
  focus.hover = null
  arrange()
  redraw()
  return found
}

const CHIPS = [['qos0', 'QoS 0', 'qos0', ''], ['qos1', 'QoS 1', 'qos1', ''], ['qos2', 'QoS 2', 'qos2', ''], ['control', 'Sessions', 'control', 'thin'],
  ['acks', 'Acks', 'ack', 'thin'], ['pings', 'Pings', 'ack', 'thin'], ['faults', 'Faults', 'fault', 'wash']]

function buildChips() {
  const titles = { control: 'CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and their answers', acks: 'PUBACK, PUBREC, PUBREL, PUBCOMP', pings: 'PINGREQ, PINGRESP' }
  document.getElementById('chips').append(...CHIPS.map(([id, label, colour, look]) => element('button', {
    type: 'button', 'aria-pressed': show[id], 'data-chip': id, title: titles[id] ?? null, onclick: (event) => {
      show[id] = !show[id]
      event.currentTarget.setAttribute('aria-pressed', show[id])
      applyFilter()
    },
  }, element('i', { class: look, style: `--of: var(--${colour})` }), label)))
}

// ---- pointer ----

function nearest(px, py) {
  if (drawn.dense || px < size.gutter || py < AXIS) return null
  let best = null, least = 7
  for (const i of [...focus.arrows, ...inView()]) {
    const line = ends(i)
    if (!line) continue
    const away = distance(px, py, ...line) + (model.arrows.kind[i] === DATA ? 0 : 1.5)
    if (away < least) { least = away; best = i }
  }
  return best
}

function distance(px, py, x1, y1, x2, y2) {
  const dx = x2 - x1, dy = y2 - y1
  const t = Math.max(0, Math.min(1, ((px - x1) * dx + (py - y1) * dy) / (dx * dx + dy * dy || 1)))
  return Math.hypot(px - x1 - t * dx, py - y1 - t * dy)
}

// What is under the pointer besides arrows: a fault, a session, a node.
function ground(px, py) {
  if (px < size.gutter || py < AXIS) return null
  const at = timeAt(px)
  const inBand = py > bandTop() && py < bandTop() + layout.band
  const lane = inBand ? null : [...layout.lanes.values()].find((l) => py >= laneY(l) && py < laneY(l) + l.height)
  const near = (view.to - view.from) / (size.width - size.gutter) * 5
  const fault = !show.faults ? null : model.faults.find((f) => f.from - (f.instant ? near : 0) <= at && at <= f.to + (f.instant ? near : 0) && (lane ? f.client === lane.client
    : inBand && f.node !== NONE && py >= nodeTop(f.node) && py < nodeTop(f.node) + nodeHeight() &&
      (f.shard === NONE || f.shard >= shardRows() || Math.abs(py - shardY(f.node, f.shard) - 6) < 7)))
  if (fault) {
    return { kind: 'Fault', title: `${faultWho(fault)}: ${fault.label}`, colour: 'fault', fields: [['from', clock(fault.from)], ...(fault.instant ? [] : [['until', fault.to < model.end ? clock(fault.to) : 'the end'], ['for', duration(fault.to - fault.from)]])] }
  }
  if (!lane) return null
  const mark = model.marks.find((m) => m.client === lane.client && Math.abs(x(m.at) - px) < 6)
  if (mark) return describe(mark.event)
  const away = laneY(lane) < bandTop() ? -1 : 1
  const strip = (py - barY(lane)) * away
  if (strip > 6 && strip < 22) {
    const subscription = subscriptionsOf.get(lane.client)?.find((s) => s.from <= at && at <= s.to && (strip > 18 || Math.abs(strip - 9 - s.row * 4) < 3.5))
    if (subscription) return { kind: 'Subscription', title: nameText(subscription.filter), colour: 'subscription', fields: [['of', clientName(lane.client)], ['maximum QoS', subscription.qos], ['from', clock(subscription.from)], ['until', subscription.to < model.end ? clock(subscription.to) : 'the end']] }
  }
  if (Math.abs(strip) < 6) {
    const session = model.sessions.find((s) => s.client === lane.client && s.from <= at && at <= s.to)
    if (session) return { kind: session.on ? 'Connection' : 'Session without a connection', title: clientName(lane.client), colour: session.on ? 'session' : 'session-off', fields: [['connection', session.conn], ['from', clock(session.from)], ['until', session.to < model.end ? clock(session.to) : 'the end'], ...(session.on && session.by !== null ? [['ended by', `the ${CLOSERS[session.by]}`]] : []), ...(session.expired ? [['then', 'it expired']] : [])] }
  }
  return drawn.dense ? crowdOf(lane, at) : null
}

// Numbers of a lane around a time, where arrows are too many to point at.
function crowdOf(lane, at) {
  const { arrows } = model
  const half = (view.to - view.from) / (size.width - size.gutter) * BIN
  let sent = 0, came = 0
  for (let i = lowerBound(at - half - arrows.longest); i < arrows.count && model.times[arrows.event[i]] <= at + half + arrows.longest; i++) {
    if (!arrows.shown[i] || arrows.kind[i] !== DATA || arrows.client[i] !== lane.client) continue
    const when = arrows.down[i] ? arrows.to[i] : arrows.from[i]
    if (Math.abs(when - at) > half) continue
    if (arrows.down[i]) came++
    else sent++
  }
  if (!sent && !came) return null
  return { kind: `Around ${clock(at)}`, title: clientName(lane.client), colour: 'mute', fields: [['published', grouped(sent)], ['delivered', grouped(came)], ['within', duration(half * 2)]] }
}

function hover(px, py) {
  const i = nearest(px, py)
  const told = i !== null ? describe(model.arrows.event[i]) : ground(px, py)
  canvas.classList.toggle('over', i !== null)
  if (focus.hover !== i) { focus.hover = i; redraw() }
  card.hidden = !told
  if (!told) return
  card.replaceChildren(kindLine(told), element('b', {}, told.title), fieldList(told.fields))
  const box = card.getBoundingClientRect()
  card.style.left = `${Math.max(6, px + 18 + box.width > size.width ? px - box.width - 14 : px + 16)}px`
  card.style.top = `${Math.max(6, Math.min(py + 14, size.height - box.height - 8))}px`
}

let drag = null
function listen() {
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault()
    cancelAnimationFrame(gliding)
    const unit = event.deltaMode === 1 ? 16 : 1
    if (event.offsetX < size.gutter) return scrollLanes(event.deltaY * unit)
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return move((event.deltaX || event.deltaY) * unit / (size.width - size.gutter))
    zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY * unit * .0022))), timeAt(event.offsetX))
  }, { passive: false })
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button) return
    cancelAnimationFrame(gliding)
    canvas.setPointerCapture(event.pointerId)
    drag = { px: event.offsetX, py: event.offsetY, from: view.from, to: view.to, scroll: view.scroll, moved: false }
  })
  canvas.addEventListener('pointermove', (event) => {
    if (!drag) return hover(event.offsetX, event.offsetY)
    const dx = event.offsetX - drag.px, dy = event.offsetY - drag.py
    if (!drag.moved && Math.hypot(dx, dy) < 4) return
    drag.moved = true
    card.hidden = true
    canvas.classList.add('dragging')
    const shift = dx / (size.width - size.gutter) * (drag.to - drag.from)
    view.scroll = Math.max(0, Math.min(drag.scroll - dy, Math.max(0, layout.height - size.height)))
    setView(drag.from - shift, drag.to - shift)
  })
  const release = (event) => {
    if (drag && !drag.moved && event.type === 'pointerup') clicked(event.offsetX, event.offsetY)
    drag = null
    canvas.classList.remove('dragging')
  }
  canvas.addEventListener('pointerup', release)
  canvas.addEventListener('pointercancel', release)
  canvas.addEventListener('pointerleave', () => { card.hidden = true; focus.hover = null; redraw() })
  canvas.addEventListener('dblclick', (event) => zoom(.35, timeAt(event.offsetX)))
  overview.addEventListener('pointerdown', (event) => { overview.setPointerCapture(event.pointerId); drag = { overview: true }; center(event) })
  overview.addEventListener('pointermove', (event) => { if (drag?.overview) center(event) })
  overview.addEventListener('pointerup', () => { drag = null })
  overview.addEventListener('wheel', (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * .002)) }, { passive: false })
  document.addEventListener('keydown', keyed)
  search.addEventListener('input', applyFilter)
  search.addEventListener('keydown', (event) => { if (event.key === 'Enter') nextMatch() })
  document.getElementById('zoom-in').addEventListener('click', () => zoom(.5))
  document.getElementById('zoom-out').addEventListener('click', () => zoom(2))
  document.getElementById('fit').addEventListener('click', () => glide(-model.end * .012, model.end * 1.02))
  document.getElementById('focus').addEventListener('click', () => showViolation())
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readInks(); redraw() })
  new ResizeObserver(resized).observe(document.getElementById('stage'))
}

function center(event) {
  const at = overTime(event.offsetX), half = (view.to - view.from) / 2
  setView(at - half, at + half)
}

function clicked(px, py) {
  if (py < AXIS) {
    const pin = pins().find((p) => Math.abs(p.px - px) < 14)
    if (pin) return jump(pin.ats[0])
  }
  const i = nearest(px, py)
  if (i !== null) pick(i)
}

// The next message that the search finds, after the middle of what is shown.
function nextMatch() {
  const { arrows, times } = model
  const middle = (view.from + view.to) / 2 + (view.to - view.from) / 1000
  let next = null
  for (let i = 0; i < arrows.count; i++) {
    if (!arrows.shown[i] || arrows.kind[i] !== DATA) continue
    next ??= i
    if (times[arrows.event[i]] > middle) { next = i; break }
  }
  if (next !== null) { pick(next); jump(times[arrows.event[next]]) }
}

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (event.target === search) {
    if (event.key === 'Escape') { clear(); canvas.focus() }
    return
  }
  if (event.target.closest?.('[role=tablist]') && event.key.startsWith('Arrow')) return
  if (event.target.closest?.('#pane') && ['ArrowUp', 'ArrowDown'].includes(event.key)) return
  const act = {
    ArrowLeft: () => move(-.12), ArrowRight: () => move(.12), ArrowUp: () => scrollLanes(-60), ArrowDown: () => scrollLanes(60),
    '+': () => zoom(.6), '=': () => zoom(.6), '-': () => zoom(1 / .6), '0': () => glide(-model.end * .012, model.end * 1.02), n: () => stepMoment(1), p: () => stepMoment(-1),
    v: () => run.violations.length && showViolation(), '/': () => search.focus(), Escape: clear,
  }[event.key]
  if (!act) return
  event.preventDefault()
  act()
}

function resized() {
  measure()
  measureOverview()
  redraw()
}

function start() {
  readInks()
  fillHeader()
  buildChips()
  buildTabs()
  measure()
  measureOverview()
  applyFilter()
  const first = run.violations[0]
  document.getElementById('focus').hidden = !first
  const summary = first ? `${first.check} is violated: ${first.message}` : 'Nothing was violated.'
  canvas.setAttribute('aria-label', `Lanes of ${counted(run.clients.length, 'client', 'clients')} and ${counted(run.nodes, 'node', 'nodes')} over ${duration(run.simulated)}. ${summary} Arrow keys move, plus and minus zoom, n goes through the moments.`)
  fitWhatHappens()
  // With many lanes both sides of the broker are seen at first.
  const below = layout.height - layout.natural - layout.band
  view.scroll = Math.max(0, Math.min(layout.natural + layout.band + Math.min(below, size.height * .38) - size.height, layout.height - size.height))
  if (first) {
    choose(first)
    first.clients.slice(0, 1).forEach(reveal)
  }
  openTab('story')
  listen()
}

start()

// For tests of the page.
window.newtmq = {
  run, view, drawn, show,
  lanes: () => [...layout.lanes.values()].map((lane) => ({ name: clientName(lane.client), y: barY(lane), height: lane.height })),
  nodes: () => Array.from({ length: run.nodes }, (_, node) => ({ name: nodeName(node), y: nodeTop(node), shards: shardRows() })),
  faults: () => model.faults.map((fault) => ({ who: faultWho(fault), label: fault.label, from: fault.from, to: fault.to })),
  sessions: () => model.sessions.length, setView, showViolation,
  highlighted: () => [...focus.arrows].map((i) => model.arrows.event[i]),
  // A point of an arrow that is in view.
  arrowAt: (event) => {
    const line = ends(model.arrows.byEvent.get(event))
    const [x1, y1, x2, y2] = line ?? []
    for (let t = .04; line && t < 1; t += .04) {
      const spot = { x: x1 + (x2 - x1) * t, y: y1 + (y2 - y1) * t }
      if (spot.x > size.gutter + 3 && spot.x < size.width - 3 && spot.y > AXIS + 3 && spot.y < size.height - 3) return spot
    }
    return null
  },
  draw: () => { draw(); drawOverview(); return drawn },
}
