// Reads the run's data (html/data.rs writes it) and joins events to what is drawn: messages with both their ends,
// sessions, subscriptions and faults as spans of time. Times are nanoseconds.

const run = JSON.parse(document.getElementById('run').textContent)
const NONE = -1
const [CONNECT, CONNACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PUBLISH, ACKED, RELEASE, RECEIVE, ACK, RELEASED, HANDED, PINGRESP,
  DISCONNECT, CLOSE, GONE, WILD, UNEXPECTED, FAULT, CALM, QUIESCE, PINGREQ, NODE_UP, NODE_DOWN, CLUSTER, COMMAND, ANSWER,
  ASK_WILL, WILL_SET] = Array(30).keys()
const ACK_NAMES = ['PUBACK', 'PUBREC', 'PUBREL', 'PUBCOMP']
const CLOSERS = ['client', 'broker', 'network']

// What is drawn between a lane and a node, by class.
const [DATA, ACKS, CONTROL, PING] = [0, 1, 2, 3]

function buildModel() {
  const events = run.events
  const times = new Float64Array(events.length)
  let now = 0
  for (let i = 0; i < events.length; i++) times[i] = now += events[i][1]
  const conns = new Map()
  const end = Math.max(now, run.simulated, 1)
  for (let i = 0; i < events.length; i++) {
    const e = events[i]
    if (e[0] === CONNECT) {
      conns.set(e[2], { conn: e[2], client: e[3], node: e[4], id: e[5], version: e[6], clean: e[7], expiry: e[8], from: times[i], to: end, by: null, up: null })
    } else if (e[0] === CONNACK && conns.has(e[2]) && e[4] < 0x80) {
      Object.assign(conns.get(e[2]), { up: times[i], present: e[3] }, e[5] !== NONE && { expiry: e[5] })
    } else if (e[0] === DISCONNECT && conns.has(e[2]) && e[3] === 0 && e[5] !== NONE) {
      conns.get(e[2]).expiry = e[5]
    } else if (e[0] === CLOSE && conns.has(e[2])) {
      Object.assign(conns.get(e[2]), { to: times[i], by: e[3] })
    }
  }
  const arrows = buildArrows(events, times, conns)
  return {
    events, times, end, conns, arrows,
    sessions: buildSessions(conns, end),
    subscriptions: buildSubscriptions(events, times, conns, end),
    faults: buildFaults(events, times, end),
    marks: buildMarks(events, times, conns),
    phases: events.flatMap((e, i) => e[0] === CALM || e[0] === QUIESCE ? [{ at: times[i], name: e[0] === CALM ? 'calm' : 'end' }] : []),
  }
}

const uidKey = (publisher, number) => publisher < 0 ? null : publisher * 0x100000000 + number

// When the broker had a client's PUBLISH is not in the history; what it did first because of it tells the latest time.
function arrivals(events, times) {
  const byUid = new Map()
  const byExchange = new Map()
  const at = new Float64Array(events.length).fill(NaN)
  const earlier = (i, time) => { if (time >= times[i] && !(at[i] <= time)) at[i] = time }
  for (let i = 0; i < events.length; i++) {
    const e = events[i]
    if (e[0] === PUBLISH) {
      if (e[3]) byExchange.set(e[2] * 65536 + e[3], i)
      if (e[4] >= 0) byUid.set(uidKey(e[4], e[5]), i)
    } else if (e[0] === ACKED && (e[3] === 0 || e[3] === 1)) {
      const publish = byExchange.get(e[2] * 65536 + e[4])
      if (publish !== undefined) earlier(publish, times[i] - e[6])
    } else if (e[0] === RECEIVE && e[4] >= 0) {
      const publish = byUid.get(uidKey(e[4], e[5]))
      if (publish !== undefined) earlier(publish, times[i] - e[10])
    }
  }
  return at
}

function buildArrows(events, times, conns) {
  const arrived = arrivals(events, times)
  const known = []
  for (let i = 0; i < events.length && known.length < 2000; i++) if (arrived[i] > 0) known.push(arrived[i] - times[i])
  known.sort((a, b) => a - b)
  const typical = known[known.length >> 1] ?? 1e6
  const list = { from: [], to: [], client: [], node: [], down: [], kind: [], qos: [], event: [], lost: [], uid: [], topic: [] }
  const add = (i, conn, down, kind, from, to, qos = 0, uid = null, topic = NONE, lost = 0) => {
    const owner = conns.get(conn)
    if (!owner) return
    list.from.push(from); list.to.push(to); list.client.push(owner.client); list.node.push(owner.node); list.down.push(down)
    list.kind.push(kind); list.qos.push(qos); list.event.push(i); list.lost.push(lost); list.uid.push(uid); list.topic.push(topic)
  }
  for (let i = 0; i < events.length; i++) {
    const e = events[i], t = times[i]
    switch (e[0]) {
      case PUBLISH: {
        const lost = isNaN(arrived[i]) && e[3] > 0
        add(i, e[2], 0, DATA, t, isNaN(arrived[i]) ? t + typical : arrived[i], e[7] & 3, uidKey(e[4], e[5]), e[6], +lost)
        break
      }
      case RECEIVE: add(i, e[2], 1, DATA, t - e[10], t, e[7] & 3, uidKey(e[4], e[5]), e[6]); break
      case ACKED: add(i, e[2], 1, ACKS, t - e[6], t); break
      case RELEASED: add(i, e[2], 1, ACKS, t - typical, t); break
      case ACK: case RELEASE: add(i, e[2], 0, ACKS, t, t + typical); break
      case CONNACK: add(i, e[2], 1, CONTROL, t - e[6], t); break
      case SUBACK: add(i, e[2], 1, CONTROL, t - e[5], t); break
      case UNSUBACK: add(i, e[2], 1, CONTROL, t - typical, t); break
      case CONNECT: case SUBSCRIBE: case UNSUBSCRIBE: add(i, e[2], 0, CONTROL, t, t + typical); break
      case DISCONNECT: add(i, e[2], e[3] === 1 ? 1 : 0, CONTROL, e[3] === 1 ? t - typical : t, e[3] === 1 ? t : t + typical); break
      case PINGREQ: add(i, e[2], 0, PING, t, t + typical); break
      case PINGRESP: add(i, e[2], 1, PING, t - typical, t); break
      case ASK_WILL: add(i, e[2], 0, CONTROL, t, t + typical); break
      case WILL_SET: add(i, e[2], 1, CONTROL, t - typical, t); break
    }
  }
  const n = list.from.length
  const arrows = {
    count: n, from: Float64Array.from(list.from), to: Float64Array.from(list.to), client: Int32Array.from(list.client),
    node: Int32Array.from(list.node), down: Uint8Array.from(list.down), kind: Uint8Array.from(list.kind), qos: Uint8Array.from(list.qos),
    event: Int32Array.from(list.event), lost: Uint8Array.from(list.lost), uid: list.uid, topic: Int32Array.from(list.topic),
    shown: new Uint8Array(n).fill(1), longest: 0, byUid: new Map(), byEvent: new Map(),
  }
  // The event of an arrow is at one of its ends; how far the other one may be bounds the search for what is in view.
  for (let i = 0; i < n; i++) {
    arrows.longest = Math.max(arrows.longest, arrows.to[i] - arrows.from[i])
    arrows.byEvent.set(arrows.event[i], i)
    if (arrows.uid[i] !== null) {
      if (!arrows.byUid.has(arrows.uid[i])) arrows.byUid.set(arrows.uid[i], [])
      arrows.byUid.get(arrows.uid[i]).push(i)
    }
  }
  return arrows
}

// A session follows its Client Identifier, from one connection to the next and from lane to lane.
function buildSessions(conns, end) {
  const spans = []
  const last = new Map()
  for (const conn of conns.values()) {
    spans.push({ client: conn.client, from: conn.from, to: conn.to, on: true, by: conn.by, conn: conn.conn })
    if (conn.up === null) continue
    const before = last.get(conn.id)
    if (before) before.next = conn
    last.set(conn.id, conn)
  }
  for (const conn of conns.values()) {
    if (conn.up === null || conn.to >= end) continue
    const seconds = conn.version < 5 ? (conn.clean ? 0 : run.broker_expiry_s ?? 7200) : Math.max(conn.expiry, 0)
    const expires = seconds === 0xffffffff ? Infinity : conn.to + seconds * 1e9
    const until = Math.min(expires, conn.next?.from ?? end, end)
    if (until > conn.to) spans.push({ client: conn.client, from: conn.to, to: until, on: false, expired: until === expires, conn: conn.conn })
  }
  return spans
}

function buildSubscriptions(events, times, conns, end) {
  const open = new Map()
  const asked = new Map()
  const spans = []
  const close = (key, at) => { const span = open.get(key); if (span) { span.to = at; open.delete(key) } }
  for (let i = 0; i < events.length; i++) {
    const e = events[i]
    const conn = conns.get(e[2])
    if (!conn) continue
    if (e[0] === CONNACK && !e[3]) {
      for (const [key, span] of open) if (span.id === conn.id) close(key, Math.min(times[i], span.ends ?? times[i]))
    } else if (e[0] === SUBSCRIBE || e[0] === UNSUBSCRIBE) {
      asked.set(e[2] * 65536 + e[3], e)
    } else if (e[0] === SUBACK) {
      const of = asked.get(e[2] * 65536 + e[3])
      of?.[5]?.forEach(([filter, qos], k) => {
        if (e[4][k] >= 0x80) return
        const key = `${conn.id} ${filter}`
        close(key, times[i])
        const span = { client: conn.client, id: conn.id, filter, qos, from: times[i], to: end, event: i }
        open.set(key, span)
        spans.push(span)
      })
    } else if (e[0] === UNSUBACK) {
      asked.get(e[2] * 65536 + e[3])?.[4]?.forEach((filter) => close(`${conn.id} ${filter}`, times[i]))
    }
  }
  // A subscription lives no longer than its session.
  for (const span of spans) {
    const ends = [...conns.values()].filter((c) => c.client === span.client && c.to >= span.from)
    for (const conn of ends) {
      const lives = conn.version < 5 ? !conn.clean : conn.expiry > 0
      if (!lives && conn.to < span.to) span.to = Math.max(span.from, conn.to)
      break
    }
  }
  const rows = new Map()
  for (const span of spans) {
    if (!rows.has(span.client)) rows.set(span.client, [])
    const ends = rows.get(span.client)
    const free = ends.findIndex((to) => to <= span.from)
    span.row = free < 0 ? ends.length : free
    ends[span.row] = span.to
  }
  return spans
}

function buildFaults(events, times, end) {
  const faults = []
  const open = new Map()
  const start = (key, fault) => { stop(key, fault.from); open.set(key, fault); faults.push(fault) }
  const stop = (key, at) => { const fault = open.get(key); if (fault) { fault.to = at; open.delete(key) } }
  for (let i = 0; i < events.length; i++) {
    if (events[i][0] !== FAULT) continue
    const [, , name, onNode, of, a, b] = events[i]
    const at = times[i]
    const base = { name, event: i, from: at, to: end, node: onNode ? of : NONE, client: onNode ? NONE : of, shard: NONE }
    const toggled = (on, label, shard = NONE) => on ? start(`${name} ${onNode} ${of} ${shard}`, { ...base, label, shard }) : stop(`${name} ${onNode} ${of} ${shard}`, at)
    switch (name) {
      case 'cut': toggled(true, a && b ? 'cut' : a ? 'cut toward the broker' : 'cut toward the client'); break
      case 'heal': stop(`cut 0 ${of} ${NONE}`, at); break
      case 'bandwidth': toggled(a > 0, `${grouped(a)} bytes/s`); break
      case 'reading': toggled(!a, 'not reading'); break
      case 'freeze': toggled(a === 1, 'frozen'); break
      case 'pause': faults.push({ ...base, to: Math.min(a, end), label: 'paused' }); break
      case 'lag': toggled(b > 0, `lag ${duration(b * 1e3)}`, a); break
      case 'drift': toggled(a !== 0, `drift ${a > 0 ? '+' : '−'}${grouped(Math.abs(a))} ppm`); break
      case 'memory': toggled(a > 0, a === 1 ? 'memory short: shed' : 'memory short: hold'); break
      case 'crash': case 'shutdown': start(`down ${of}`, { ...base, label: name === 'crash' ? 'crashed' : 'stopped', down: true }); break
      case 'restart': stop(`down ${of}`, at); break
      case 'clock_jump': faults.push({ ...base, to: at, label: `clock ${a > 0 ? '+' : '−'}${duration(Math.abs(a) * 1e6)}`, instant: true }); break
    }
  }
  return faults
}

function buildMarks(events, times, conns) {
  const marks = []
  for (let i = 0; i < events.length; i++) {
    const e = events[i]
    if (e[0] !== WILD && e[0] !== UNEXPECTED) continue
    const conn = conns.get(e[2])
    if (conn) marks.push({ at: times[i], client: conn.client, event: i, bad: e[0] === UNEXPECTED })
  }
  return marks
}

// ---- words ----

const clientName = (ix) => run.clients[ix]?.name ?? `client ${ix}`
const nodeName = (ix) => run.nodes > 1 ? `node ${ix}` : 'broker'
const nameText = (ix) => run.names[ix] ?? `name ${ix}`
const uidText = (publisher, number) => publisher < 0 ? 'a message without a name' : `${clientName(publisher)}#${number}`
const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ',')
const counted = (number, one, many) => `${grouped(number)} ${number === 1 ? one : many}`
const codeText = (code) => `0x${code.toString(16).padStart(2, '0')} ${run.codes[code] ?? ''}`.trim()

function duration(nanos) {
  if (nanos < 1e3) return `${Math.round(nanos)} ns`
  if (nanos < 1e6) return `${trim(nanos / 1e3)} µs`
  if (nanos < 1e9) return `${trim(nanos / 1e6)} ms`
  return `${trim(nanos / 1e9)} s`
}

const trim = (number) => String(+number.toPrecision(3))

function clock(nanos, decimals = 3) {
  return `${(nanos / 1e9).toFixed(decimals)} s`
}

// A title, what kind of thing it is, its colour and its fields, for the card and the panel.
function describe(i) {
  const e = model.events[i], at = model.times[i]
  const conn = model.conns.get(e[2])
  const who = conn ? clientName(conn.client) : ''
  const on = conn ? [['connection', `${e[2]} of ${who}`]] : []
  const told = (kind, title, colour, fields = []) => ({ kind, title, colour, fields: [['time', clock(at, 6)], ...fields.filter(([, v]) => v !== null && v !== ''), ...on] })
  switch (e[0]) {
    case CONNECT: {
      const will = e[13]
      return told('CONNECT', who, 'control', [['identifier', nameText(e[5])], ['version', { 3: '3.1', 4: '3.1.1', 5: '5.0' }[e[6]]], ['clean', e[7] ? 'yes' : 'no'],
        ['session expiry', e[8] > 0 ? `${grouped(e[8])} s` : null], ['keep alive', e[9] ? `${e[9]} s` : null],
        ['will', will ? `${nameText(will[2])}, QoS ${will[3]}${will[5] ? `, after ${will[5]} s` : ''}` : null]])
    }
    case CONNACK: return told('CONNACK', codeText(e[4]), 'control', [['session present', e[3] ? 'yes' : 'no']])
    case SUBSCRIBE: return told('SUBSCRIBE', e[5].map(([f, q]) => `${nameText(f)} (QoS ${q})`).join(', '), 'control', [['packet id', e[3]]])
    case SUBACK: return told('SUBACK', e[4].map(codeText).join(', '), 'control', [['packet id', e[3]]])
    case UNSUBSCRIBE: return told('UNSUBSCRIBE', e[4].map(nameText).join(', '), 'control', [['packet id', e[3]]])
    case UNSUBACK: return told('UNSUBACK', e[4].map(codeText).join(', ') || 'done', 'control', [['packet id', e[3]]])
    case PUBLISH: case RECEIVE: {
      const flags = [e[7] & 4 && 'DUP', e[7] & 8 && 'RETAIN', e[0] === RECEIVE && !(e[7] & 16) && 'not intact'].filter(Boolean)
      return told(e[0] === PUBLISH ? `PUBLISH from ${who}` : `Delivery to ${who}`, `${uidText(e[4], e[5])}`, `qos${e[7] & 3}`,
        [['topic', nameText(e[6])], ['QoS', e[7] & 3], ['flags', flags.join(', ')], ['packet id', e[3] || null], ['payload', counted(e[9], 'byte', 'bytes')],
          ['expires after', e[8] >= 0 ? `${e[8]} s` : null], ['under way', e[0] === RECEIVE ? duration(e[10]) : null], ['subscription ids', e[11]?.join(', ') ?? null]])
    }
    case ACKED: return told(`${ACK_NAMES[e[3]]} to ${who}`, codeText(e[5]), 'ack', [['packet id', e[4]], ['under way', duration(e[6])]])
    case ACK: return told(`${ACK_NAMES[e[3]]} from ${who}`, codeText(e[5]), 'ack', [['packet id', e[4]]])
    case RELEASE: return told(`PUBREL from ${who}`, `packet id ${e[3]}`, 'ack')
    case RELEASED: return told(`PUBREL to ${who}`, `packet id ${e[3]}`, 'ack')
    case HANDED: return told('Handed to the application', uidText(e[3], e[4]), `qos${e[5]}`)
    case PINGREQ: return told('PINGREQ', who, 'ack')
    case PINGRESP: return told('PINGRESP', who, 'ack')
    case ASK_WILL: return told('Asks for a will', e[3] === NONE ? 'none' : uidText(e[3], e[4]), 'control')
    case WILL_SET: return told('The will is as it asked', who, 'control')
    case DISCONNECT: return told(`DISCONNECT by the ${CLOSERS[e[3]]}`, codeText(e[4]), 'control')
    case CLOSE: return told('Connection over', e[4], 'mute')
    case GONE: return told('Connection over for the broker', who, 'mute')
    case WILD: return told('Breaks the protocol', e[3], 'fault')
    case UNEXPECTED: return told('What no broker may send', e[3], 'bad')
    default: return told('Fault', '', 'fault')
  }
}

const model = buildModel()
