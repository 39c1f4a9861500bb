// A client for trying things: connects to a listener with WebSocket, subscribes, publishes, and shows what comes.

import { session } from '../api.js'
import { badge, clean, h, show } from '../dom.js'
import * as forms from '../forms.js'
import { field, input } from '../forms.js'
import { Client } from '../mqtt.js'

export const title = 'Test client'

const KEPT = 200
const decoder = new TextDecoder('utf-8', { fatal: true })

// Text if it is text, otherwise bytes.
function shown(payload) {
  try {
    return { text: clean(decoder.decode(payload.subarray(0, 4096))), kind: 'text' }
  } catch {
    return { text: [...payload.subarray(0, 256)].map((byte) => byte.toString(16).padStart(2, '0')).join(' '), kind: 'bytes' }
  }
}

const qosPicker = (chosen) => h('select', { 'aria-label': 'QoS' }, [0, 1, 2].map((qos) => h('option', { value: qos, selected: qos === chosen }, `QoS ${qos}`)))

export function render(place) {
  const host = location.hostname
  const urls = session.current.websockets.map(({ scheme, port, path }) => `${scheme}://${host}:${port}${path}`)
  const wanted = location.protocol === 'https:' ? urls.find((url) => url.startsWith('wss')) ?? urls[0] : urls[0]
  const url = h('select', { name: 'url' }, urls.map((one) => h('option', { value: one, selected: one === wanted }, one)))
  const id = input({ name: 'client', value: `dashboard-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`, maxlength: '256' })
  const [user, password] = [input({ name: 'user' }), input({ name: 'password', type: 'password' })]
  const clean_ = h('input', { type: 'checkbox', checked: true })
  const state = h('span', { role: 'status', id: 'client-state' }, badge('', 'not connected'))
  const told = h('p', { class: 'error', role: 'alert' })
  const button = h('button', { type: 'submit', class: 'main' }, 'Connect')
  const [filter, subscribeQos] = [input({ name: 'filter', value: 'test/#', required: true }), qosPicker(1)]
  const [topic, publishQos] = [input({ name: 'topic', value: 'test/hello', required: true }), qosPicker(1)]
  const payload = h('textarea', { name: 'payload', rows: '3', spellcheck: 'false' })
  payload.value = '{"hello": "world"}'
  const retain = h('input', { type: 'checkbox' })
  const subscribed = h('ul', { class: 'chips', 'aria-label': 'Subscriptions' })
  const messages = h('ol', { class: 'messages', 'aria-label': 'Messages', 'aria-live': 'polite', tabindex: '0' })
  const tally = h('span', { class: 'soft' })
  let client = null
  const seen = { in: 0, out: 0 }
  const needing = []

  const attempt = (work) => forms.attempt(told, work)

  function draw(up) {
    show(state, up ? badge('good', 'connected') : badge('', 'not connected'))
    button.textContent = client ? 'Disconnect' : 'Connect'
    for (const one of needing) one.disabled = !up
    for (const one of [url, id, user, password, clean_]) one.disabled = Boolean(client)
    if (!up) show(subscribed)
  }

  function add(way, message) {
    seen[way] += 1
    const { text, kind } = shown(typeof message.payload === 'string' ? new TextEncoder().encode(message.payload) : message.payload)
    messages.prepend(h('li', { class: way },
      h('div', { class: 'meta' }, badge(way === 'in' ? 'good' : '', way === 'in' ? 'received' : 'sent'), h('code', {}, clean(message.topic)), h('span', { class: 'soft' },
        [`QoS ${message.qos}`, message.retain && 'retained', message.duplicate && 'again', new Date().toLocaleTimeString('en-GB')].filter(Boolean).join(' · '))),
      h('pre', { class: kind }, text || '(empty)')))
    while (messages.children.length > KEPT) messages.lastChild.remove()
    tally.textContent = `${seen.in} received, ${seen.out} sent`
  }

  function up(connack) {
    draw(true)
    if (connack.clientId) id.value = connack.clientId
  }

  function down(why) {
    client = null
    draw(false)
    if (why !== 'disconnected') told.textContent = `Disconnected: ${why}`
  }

  const toggle = attempt(async () => {
    if (client) return client.end()
    if (!url.value) throw new Error('No listener of this node has WebSocket.')
    client = new Client(url.value, { clientId: id.value, username: user.value, password: password.value, clean: clean_.checked, keepAlive: 60, expiry: clean_.checked ? 0 : 3600 },
      { up, down, message: (message) => add('in', message) })
    draw(false)
  })

  const chip = (text) => {
    const element = h('li', {}, h('code', {}, clean(text)), h('button', { type: 'button', 'aria-label': `Unsubscribe ${clean(text)}`, onclick: attempt(async () => { await client.unsubscribe(text); element.remove() }) }, '×'))
    element.dataset.filter = text
    return element
  }

  const subscribe = attempt(async () => {
    const text = filter.value
    await client.subscribe(text, Number(subscribeQos.value))
    if (![...subscribed.children].some((one) => one.dataset.filter === text)) subscribed.append(chip(text))
  })

  const publish = attempt(async () => {
    const message = { topic: topic.value, payload: payload.value, qos: Number(publishQos.value), retain: retain.checked }
    await client.publish(message)
    add('out', message)
  })

  const subscribeButton = h('button', { type: 'submit' }, 'Subscribe')
  const publishButton = h('button', { type: 'submit' }, 'Publish')
  needing.push(subscribeButton, publishButton)
  place.append(told, h('div', { class: 'columns' },
    h('div', { class: 'stack' },
      h('form', { class: 'card', onsubmit: toggle, autocomplete: 'off' }, h('h2', {}, 'Connection ', state),
        h('div', { class: 'grid' }, field('Listener', url), field('Client id', id), field('User (if any)', user), field('Password (if any)', password)),
        h('div', { class: 'toolbar' }, h('label', { class: 'check' }, clean_, ' clean start'), h('span', { class: 'grow' }), button)),
      h('form', { class: 'card', onsubmit: subscribe }, h('h2', {}, 'Subscribe'),
        h('div', { class: 'toolbar' }, field('Filter', filter), subscribeQos, subscribeButton), subscribed),
      h('form', { class: 'card', onsubmit: publish }, h('h2', {}, 'Publish'),
        field('Topic', topic), field('Payload', payload),
        h('div', { class: 'toolbar' }, publishQos, h('label', { class: 'check' }, retain, ' retain'), h('span', { class: 'grow' }), publishButton))),
    h('section', { class: 'card client' }, h('h2', {}, 'Messages ', tally), messages,
      h('div', { class: 'toolbar' }, h('span', { class: 'grow' }), h('button', { type: 'button', class: 'quiet', onclick: () => { show(messages); Object.assign(seen, { in: 0, out: 0 }); tally.textContent = '' } }, 'Clear')))))
  draw(false)
  return () => client?.end()
}
