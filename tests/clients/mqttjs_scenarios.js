// What a program with MQTT.js does, in Node.js and in browsers alike: this file is run as it is by both, and leaves
// `mqttjsScenarios`. It uses nothing that only one of them has.
'use strict'

globalThis.mqttjsScenarios = async function (mqtt, url, connectOptions, report) {
  const DEADLINE_MS = 30_000

  // Fails instead of waiting for ever.
  function soon(what, promise) {
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`still waiting for ${what}`)), DEADLINE_MS)
    })
    return Promise.race([promise, late]).finally(() => clearTimeout(timer))
  }

  function same(got, wanted, what) {
    const [a, b] = [got, wanted].map((value) => JSON.stringify(value))
    if (a !== b) throw new Error(`${what}: ${a.slice(0, 200)} instead of ${b.slice(0, 200)}`)
  }

  const clients = []

  // A connected client whose messages wait in a queue.
  async function connect(protocolVersion, options = {}) {
    const { expiry = 0, ...rest } = options
    const properties = protocolVersion === 5 ? { properties: { sessionExpiryInterval: expiry } } : {}
    const client = mqtt.connect(url, { ...connectOptions, reconnectPeriod: 0, protocolVersion, ...properties, ...rest })
    const queue = []
    const waiting = []
    client.on('message', (topic, payload, { qos, retain, properties }) => {
      const message = { topic, payload: payload.toString(), qos, retain, properties }
      if (waiting.length > 0) waiting.shift()(message)
      else queue.push(message)
    })
    client.next = () =>
      soon('a message', new Promise((resolve) => (queue.length > 0 ? resolve(queue.shift()) : waiting.push(resolve))))
    client.brief = async () => {
      const { topic, payload, qos, retain } = await client.next()
      return [topic, payload, qos, retain]
    }
    clients.push(client)
    const refused = new Promise((_, reject) => client.once('close', () => reject(new Error('it cannot connect'))))
    client.connack = await soon('CONNACK', Promise.race([event(client, 'connect'), refused]))
    refused.catch(() => {})
    return client
  }

  // The next event of a name; an error is a failure.
  function event(client, name) {
    return new Promise((resolve, reject) => {
      client.once(name, resolve)
      client.once('error', reject)
    })
  }

  async function subscribe(client, filter, options) {
    const granted = await soon('SUBACK', client.subscribeAsync(filter, options))
    for (const { qos } of granted) same(qos, options.qos, 'granted')
  }

  const publish = (client, ...message) => soon('the acknowledgement', client.publishAsync(...message))

  const leave = (client) => soon('its end', client.endAsync())

  async function everyQos(version) {
    const subscriber = await connect(version)
    const publisher = await connect(version)
    await subscribe(subscriber, 'j/#', { qos: 2 })
    for (const qos of [0, 1, 2]) {
      for (const size of [0, 1, 127, 128, 16_384, 300_000]) {
        const payload = 'x'.repeat(size)
        await publish(publisher, `j/${qos}/${size}`, payload, { qos })
        same(await subscriber.brief(), [`j/${qos}/${size}`, payload, qos, false], 'message')
      }
    }
    await soon('UNSUBACK', subscriber.unsubscribeAsync('j/#'))
    await publish(publisher, 'j/after', '', { qos: 1 })
    await subscribe(subscriber, 'q', { qos: 1 })
    await publish(publisher, 'q', 'end', { qos: 1 })
    same((await subscriber.next()).topic, 'q', 'unsubscribed')
  }

  async function manyAtOnce(version) {
    const subscriber = await connect(version)
    const publisher = await connect(version)
    await subscribe(subscriber, 'many', { qos: 1 })
    await Promise.all(Array.from({ length: 500 }, (_, n) => publish(publisher, 'many', String(n), { qos: 1 })))
    for (let n = 0; n < 500; n += 1) same((await subscriber.next()).payload, String(n), 'order')
  }

  async function retained(version) {
    const publisher = await connect(version)
    await publish(publisher, 'r/1', 'kept', { qos: 1, retain: true })
    const subscriber = await connect(version)
    await subscribe(subscriber, 'r/#', { qos: 1 })
    same(await subscriber.brief(), ['r/1', 'kept', 1, true], 'retained')
    await publish(publisher, 'r/1', '', { qos: 1, retain: true })
    same((await subscriber.next()).payload, '', 'deleted')
    const late = await connect(version)
    await subscribe(late, 'r/#', { qos: 1 })
    await publish(publisher, 'r/2', 'live', { qos: 1 })
    same((await late.next()).topic, 'r/2', 'nothing is retained')
  }

  async function sessions(version) {
    const session = { clientId: `session-${version}`, clean: false, expiry: 600 }
    const publisher = await connect(version)
    // The library connects again by itself, with the subscription in the broker only.
    const first = await connect(version, { ...session, reconnectPeriod: 1, resubscribe: false })
    same(first.connack.sessionPresent, false, 'a new session')
    await subscribe(first, 's', { qos: 2 })
    const again = event(first, 'connect')
    first.stream.destroy()
    same((await soon('the reconnect', again)).sessionPresent, true, 'the session after a reconnect')
    await publish(publisher, 's', 'after', { qos: 2 })
    same(await first.brief(), ['s', 'after', 2, false], 'after a reconnect')
    await leave(first)
    for (let n = 0; n < 50; n += 1) await publish(publisher, 's', String(n), { qos: 1 + (n % 2) })
    const second = await connect(version, session)
    same(second.connack.sessionPresent, true, 'the session')
    const got = []
    for (let n = 0; n < 50; n += 1) got.push(Number((await second.next()).payload))
    // A QoS 2 message reaches the program at its PUBREL, so each QoS has an order of its own.
    const wanted = Array.from({ length: 50 }, (_, n) => n)
    for (const odd of [0, 1]) {
      same(got.filter((n) => n % 2 === odd), wanted.filter((n) => n % 2 === odd), 'what has waited')
    }
    const closed = event(second, 'close')
    const third = await connect(version, { ...session, clean: true, expiry: 0 })
    same(third.connack.sessionPresent, false, 'a clean start')
    await soon('the end of the one taken over', closed)
  }

  async function wills(version) {
    const watcher = await connect(version)
    await subscribe(watcher, 'w/#', { qos: 1 })
    const will = (topic, payload) => ({ will: { topic, payload, qos: 1, retain: false } })
    await leave(await connect(version, will('w/polite', 'never')))
    const rude = await connect(version, will('w/rude', 'gone'))
    rude.stream.destroy()
    same(await watcher.brief(), ['w/rude', 'gone', 1, false], 'will')
  }

  async function propertiesOf5(version) {
    const asker = await connect(version)
    const server = await connect(version)
    await subscribe(server, '$share/group/ask', { qos: 1 })
    await subscribe(asker, 'answer', { qos: 1, nl: true })
    const properties = { responseTopic: 'answer', contentType: 'text/plain', userProperties: { a: ['1', '2'] } }
    await publish(asker, 'ask', '?', { qos: 1, properties })
    const asked = (await server.next()).properties
    same([asked.responseTopic, asked.contentType], ['answer', 'text/plain'], 'properties')
    same(asked.userProperties, { a: ['1', '2'] }, 'user properties')
    await publish(asker, 'answer', 'not to me', { qos: 1 })
    await publish(server, asked.responseTopic, '!', { qos: 2, properties: { messageExpiryInterval: 60 } })
    const answer = await asker.next()
    same(answer.payload, '!', 'answer')
    const left = answer.properties.messageExpiryInterval
    same(left > 0 && left <= 60, true, `expiry ${left}`)
  }

  let passed = 0
  for (const version of [4, 5]) {
    for (const test of [everyQos, manyAtOnce, retained, sessions, wills].concat(version === 5 ? propertiesOf5 : [])) {
      await test(version)
      await Promise.all(clients.splice(0).map(leave))
      report(`ok ${test.name} ${version}`)
      passed += 1
    }
  }
  report(`${passed} passed`)
}
