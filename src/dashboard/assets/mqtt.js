// A small MQTT 5 client over WebSocket: what the test client needs, and no more. Bytes to packets and back are functions of
// their own, which know no socket.

const [CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT] =
  Array.from({ length: 14 }, (_, at) => at + 1)
const LONGEST = 268_435_455
const utf8 = new TextEncoder()
const text = new TextDecoder('utf-8', { fatal: true })

// ---- writing ----

function number(n) {
  const out = []
  do {
    out.push(n % 128 | (n > 127 ? 0x80 : 0))
    n = Math.floor(n / 128)
  } while (n > 0)
  return out
}

const two = (n) => [n >> 8, n & 0xff]
const four = (n) => [n >>> 24, n >>> 16 & 0xff, n >>> 8 & 0xff, n & 0xff]

function string(value) {
  const bytes = typeof value === 'string' ? utf8.encode(value) : value
  if (bytes.length > 0xffff) throw new Error('longer than 65535 bytes')
  return [...two(bytes.length), ...bytes]
}

function packet(kind, flags, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  if (length > LONGEST) throw new Error('the packet is too large')
  const head = [kind << 4 | flags, ...number(length)]
  const out = new Uint8Array(head.length + length)
  out.set(head)
  let at = head.length
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

export function connect({ clientId, username, password, clean, keepAlive, expiry }) {
  const flags = (clean ? 2 : 0) | (password ? 0x40 : 0) | (username ? 0x80 : 0)
  const properties = expiry ? [0x11, ...four(expiry)] : []
  return packet(CONNECT, 0, string('MQTT'), [5, flags], two(keepAlive), number(properties.length), properties, string(clientId),
    username ? string(username) : [], password ? string(password) : [])
}

export function publish({ topic, payload, qos, retain, duplicate, id }) {
  const flags = (duplicate ? 8 : 0) | qos << 1 | (retain ? 1 : 0)
  return packet(PUBLISH, flags, string(topic), qos ? two(id) : [], [0], typeof payload === 'string' ? utf8.encode(payload) : payload)
}

export const subscribe = ({ id, filter, qos, noLocal }) => packet(SUBSCRIBE, 2, two(id), [0], string(filter), [qos | (noLocal ? 4 : 0)])
export const unsubscribe = ({ id, filter }) => packet(UNSUBSCRIBE, 2, two(id), [0], string(filter))
export const answer = (kind, id) => packet(kind, kind === PUBREL ? 2 : 0, two(id))
export const ping = () => packet(PINGREQ, 0)
export const disconnect = () => packet(DISCONNECT, 0)

// ---- reading ----

class Reader {
  constructor(bytes) {
    Object.assign(this, { bytes, at: 0 })
  }
  get left() { return this.bytes.length - this.at }
  byte() {
    if (!this.left) throw new Error('a packet ends too early')
    return this.bytes[this.at++]
  }
  two() { return this.byte() << 8 | this.byte() }
  four() { return this.two() * 65536 + this.two() }
  take(length) {
    if (length > this.left) throw new Error('a packet ends too early')
    return this.bytes.subarray(this.at, this.at += length)
  }
  string() { return text.decode(this.take(this.two())) }
  number() {
    let [n, size] = [0, 1]
    for (let at = 0; at < 4; at++) {
      const byte = this.byte()
      n += (byte & 0x7f) * size
      if (byte < 0x80) return n
      size *= 128
    }
    throw new Error('a length has more than four bytes')
  }
  properties() {
    const of = new Reader(this.take(this.number()))
    const found = { user: [] }
    while (of.left) {
      const id = of.number()
      if ([0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a].includes(id)) found[id] = of.byte()
      else if ([0x13, 0x21, 0x22, 0x23].includes(id)) found[id] = of.two()
      else if ([0x02, 0x11, 0x18, 0x27].includes(id)) found[id] = of.four()
      else if ([0x03, 0x08, 0x12, 0x15, 0x1a, 0x1c, 0x1f].includes(id)) found[id] = of.string()
      else if ([0x09, 0x16].includes(id)) found[id] = of.take(of.two())
      else if (id === 0x0b) found[id] = of.number()
      else if (id === 0x26) found.user.push([of.string(), of.string()])
      else throw new Error(`an unknown property ${id}`)
    }
    return found
  }
}

function read(first, of) {
  const kind = first >> 4
  switch (kind) {
    case CONNACK: {
      const present = of.byte() === 1
      const code = of.byte()
      const properties = of.properties()
      return { kind, present, code, clientId: properties[0x12], reason: properties[0x1f], keepAlive: properties[0x13] }
    }
    case PUBLISH: {
      const qos = first >> 1 & 3
      const topic = of.string()
      const id = qos ? of.two() : 0
      const properties = of.properties()
      return { kind, qos, topic, id, retain: (first & 1) === 1, duplicate: (first & 8) === 8, properties, payload: of.take(of.left).slice() }
    }
    case PUBACK: case PUBREC: case PUBREL: case PUBCOMP:
      return { kind, id: of.two(), code: of.left ? of.byte() : 0, reason: of.left ? of.properties()[0x1f] : undefined }
    case SUBACK: case UNSUBACK: {
      const id = of.two()
      const reason = of.properties()[0x1f]
      return { kind, id, codes: [...of.take(of.left)], reason }
    }
    case DISCONNECT:
      return { kind, code: of.left ? of.byte() : 0, reason: of.left ? of.properties()[0x1f] : undefined }
    case PINGRESP:
      return { kind }
    default:
      throw new Error(`a packet of kind ${kind} does not come from a broker`)
  }
}

// Takes what comes, in pieces of any size, and gives whole packets.
export class Packets {
  #bytes = new Uint8Array()
  take(piece) {
    const all = new Uint8Array(this.#bytes.length + piece.length)
    all.set(this.#bytes)
    all.set(piece, this.#bytes.length)
    const found = []
    let at = 0
    while (at < all.length) {
      const of = new Reader(all.subarray(at + 1))
      let length
      try {
        length = of.number()
      } catch (error) {
        if (of.at >= 4) throw error
        break
      }
      if (of.left < length) break
      found.push(read(all[at], new Reader(of.take(length))))
      at += 1 + of.at
    }
    this.#bytes = all.slice(at)
    return found
  }
}

// ---- a connection ----

const CODES = {
  0x80: 'unspecified error', 0x81: 'malformed packet', 0x82: 'protocol error', 0x83: 'implementation specific error', 0x84: 'unsupported protocol version',
  0x85: 'client identifier not valid', 0x86: 'bad user name or password', 0x87: 'not authorized', 0x88: 'server unavailable', 0x89: 'server busy',
  0x8a: 'banned', 0x8b: 'server shutting down', 0x8d: 'keep alive timeout', 0x8e: 'session taken over', 0x8f: 'topic filter invalid',
  0x90: 'topic name invalid', 0x91: 'packet identifier in use', 0x93: 'receive maximum exceeded', 0x95: 'packet too large', 0x96: 'message rate too high',
  0x97: 'quota exceeded', 0x98: 'administrative action', 0x99: 'payload format invalid', 0x9a: 'retain not supported', 0x9b: 'QoS not supported',
  0x9c: 'use another server', 0x9d: 'server moved', 0x9e: 'shared subscriptions not supported', 0x9f: 'connection rate exceeded',
}
export const named = (code, reason) => `${CODES[code] ?? `reason 0x${code.toString(16)}`}${reason ? `: ${reason}` : ''}`

// Tells `on.up(connack)`, `on.message(publish)`, `on.down(why)`; what is asked for is a promise.
export class Client {
  #socket
  #packets = new Packets()
  #waiting = new Map()
  #received = new Set()
  #last = 0
  #timer
  #why = null
  #on

  constructor(url, options, on) {
    this.#on = on
    this.#socket = new WebSocket(url, 'mqtt')
    this.#socket.binaryType = 'arraybuffer'
    this.#socket.onopen = () => this.#send(connect(options))
    this.#socket.onmessage = (event) => this.#heard(new Uint8Array(event.data))
    this.#socket.onclose = () => this.#ended(this.#why ?? 'the connection was closed')
    this.keepAlive = options.keepAlive
  }

  #send(bytes) {
    if (this.#socket.readyState !== WebSocket.OPEN) throw new Error('there is no connection')
    this.#socket.send(bytes)
  }

  #heard(bytes) {
    try {
      for (const packet of this.#packets.take(bytes)) this.#handle(packet)
    } catch (error) {
      this.#why = error.message
      this.#socket.close()
    }
  }

  #handle(packet) {
    const done = (refused, value) => {
      const waiting = this.#waiting.get(packet.id)
      this.#waiting.delete(packet.id)
      if (refused >= 0x80) waiting?.reject(new Error(named(refused, packet.reason)))
      else waiting?.resolve(value)
    }
    switch (packet.kind) {
      case CONNACK:
        if (packet.code >= 0x80) {
          this.#why = named(packet.code, packet.reason)
          return
        }
        this.keepAlive = packet.keepAlive ?? this.keepAlive
        if (this.keepAlive) this.#timer = setInterval(() => this.#send(ping()), this.keepAlive * 750)
        this.#on.up(packet)
        return
      case PUBLISH:
        // With QoS 2 it may come again until it is released.
        if (packet.qos === 2 && this.#received.has(packet.id)) this.#send(answer(PUBREC, packet.id))
        else {
          if (packet.qos === 1) this.#send(answer(PUBACK, packet.id))
          if (packet.qos === 2) {
            this.#received.add(packet.id)
            this.#send(answer(PUBREC, packet.id))
          }
          this.#on.message(packet)
        }
        return
      case PUBREL:
        this.#received.delete(packet.id)
        this.#send(answer(PUBCOMP, packet.id))
        return
      case PUBREC:
        if (packet.code >= 0x80) done(packet.code)
        else this.#send(answer(PUBREL, packet.id))
        return
      case PUBACK: case PUBCOMP:
        done(packet.code, packet.code)
        return
      case SUBACK: case UNSUBACK:
        done(packet.codes[0], packet.codes[0])
        return
      case DISCONNECT:
        this.#why = named(packet.code, packet.reason)
    }
  }

  #ended(why) {
    clearInterval(this.#timer)
    for (const { reject } of this.#waiting.values()) reject(new Error(why))
    this.#waiting.clear()
    this.#on.down(why)
  }

  #ask(make) {
    do this.#last = this.#last % 0xffff + 1
    while (this.#waiting.has(this.#last))
    const id = this.#last
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      try {
        this.#send(make(id))
      } catch (error) {
        this.#waiting.delete(id)
        reject(error)
      }
    })
  }

  subscribe(filter, qos) { return this.#ask((id) => subscribe({ id, filter, qos })) }
  unsubscribe(filter) { return this.#ask((id) => unsubscribe({ id, filter })) }

  async publish(message) {
    if (message.qos === 0) return this.#send(publish({ ...message, id: 0 }))
    return this.#ask((id) => publish({ ...message, id }))
  }

  end() {
    this.#why ??= 'disconnected'
    if (this.#socket.readyState === WebSocket.OPEN) this.#send(disconnect())
    this.#socket.close()
  }
}
