// The lists: connections, sessions, subscriptions, routes, retained messages and devices, of the whole cluster; and what operators
// have done.

import { clean, count, badge, h, since, span } from '../dom.js'
import { list } from '../table.js'
import { kick } from './client.js'

const client = (id) => h('a', { class: 'name', href: `#/client/${encodeURIComponent(id)}` }, clean(id))
const topic = (text) => h('code', {}, clean(text))
const exactly = (path) => (text) => [`${path}/${encodeURIComponent(text)}`]
const VERSIONS = { 3: '3.1', 4: '3.1.1', 5: '5.0' }

const page = (title, about, options) => ({
  title,
  render(place) {
    place.append(h('p', { class: 'soft' }, about), list(options).element)
  },
})

export const connections = page('Connections', 'Clients that are connected, at every node.', {
  path: '/connections', empty: 'Nobody is connected.',
  search: {
    label: 'Client id or user name',
    paths: (text) => [`/connections/${encodeURIComponent(text)}`, `/connection/username/${encodeURIComponent(text)}?_limit=500`],
    text: (row) => `${row.client_id} ${row.username ?? ''} ${row.ipaddress}`,
  },
  columns: [
    ['Client id', (row) => client(row.client_id)], ['User', (row) => clean(row.username ?? '–')], ['From', (row) => `${row.ipaddress}:${row.port}`],
    ['Node', (row) => row.node], ['MQTT', (row) => VERSIONS[row.proto_ver] ?? row.proto_ver], ['Since', (row) => since(row.connected_unix)],
  ],
  actions: (row, refresh) => h('button', { type: 'button', class: 'quiet bad', 'aria-label': `Kick ${clean(row.client_id)}`, onclick: () => kick(row.client_id, refresh) }, 'Kick'),
})

export const sessions = page('Sessions', 'What the broker keeps for clients, connected or away.', {
  path: '/sessions', empty: 'There is no session.',
  search: { label: 'Client id', paths: exactly('/sessions'), text: (row) => row.client_id },
  columns: [
    ['Client id', (row) => client(row.client_id)], ['State', (row) => row.connected ? badge('good', 'connected') : badge('', 'away')], ['Node', (row) => row.node],
    ['Subscriptions', (row) => count(row.subscriptions_count), 'number'],
    ['In flight', (row) => `${count(row.inflight_len)} / ${count(row.max_inflight)}`, 'number'], ['Queue', (row) => `${count(row.mqueue_len)} / ${count(row.max_mqueue)}`, 'number'],
    ['Expires after', (row) => row.expiry_interval ? span(row.expiry_interval) : 'its connection'], ['Stored', (row) => row.durable ? 'yes' : 'no'],
  ],
})

export const subscriptions = page('Subscriptions', 'Topic filters, and the clients that have subscribed them.', {
  path: '/subscriptions', empty: 'Nobody has subscribed anything.',
  search: { label: 'Client id or filter', paths: (text) => [`/subscriptions/${encodeURIComponent(text)}?_limit=500`], text: (row) => `${row.client_id} ${row.topic}` },
  columns: [
    ['Client id', (row) => client(row.client_id)], ['Filter', (row) => topic(row.topic)], ['QoS', (row) => row.qos, 'number'], ['Node', (row) => row.node],
    ['Client', (row) => row.connected ? 'connected' : 'away'],
  ],
})

export const routes = page('Topics', 'Routes: topic filters, and the nodes with subscribers of them.', {
  path: '/routes', empty: 'There is no route.',
  search: { label: 'Filter', paths: exactly('/routes'), text: (row) => row.topic },
  columns: [['Filter', (row) => topic(row.topic)], ['Node', (row) => row.node]],
})

export const retained = page('Retained', 'Messages that whoever subscribes gets at once, as this node has them, without their payloads.', {
  path: '/retained', empty: 'No message is retained.',
  search: { label: 'Topic', text: (row) => row.topic },
  columns: [['Topic', (row) => topic(row.topic)], ['QoS', (row) => row.qos, 'number'], ['Payload', (row) => `${count(row.payload_bytes)} bytes`, 'number']],
})

const STATES = { active: 'good', awake: 'good', asleep: 'warn', connecting: '' }

export const devices = page('MQTT-SN', 'Devices of MQTT-SN, at every node, and how many messages the gateway has for them. What waits in a session is on the page of the client.', {
  path: '/sn/clients', empty: 'There is no device.',
  search: { label: 'Client id or address', text: (row) => `${row.client_id} ${row.address ?? ''} ${row.state}` },
  columns: [
    ['Client id', (row) => client(row.client_id)], ['State', (row) => badge(STATES[row.state] ?? '', row.state)], ['Address', (row) => row.address ?? '–'], ['Node', (row) => row.node],
    ['Keep alive', (row) => row.keepalive ? span(row.keepalive) : 'none'], ['Sleeps for', (row) => row.sleep ? span(row.sleep) : '–'], ['Heard', (row) => `${span(row.heard_seconds_ago)} ago`],
    ['At the gateway', (row) => count(row.mqueue_len), 'number'], ['Topic ids', (row) => count(row.topic_ids), 'number'],
  ],
})

export const audit = page('Audit log', 'What operators have changed through this node, the latest first. Each node has its own.', {
  path: '/audit', empty: 'Nothing was changed.',
  search: { label: 'Words of a line', text: (row) => `${row.at} ${row.by} ${row.from} ${row.action} ${row.what} ${row.why ?? ''}` },
  columns: [
    ['At', (row) => row.at, 'tight'], ['By', (row) => clean(row.by)], ['From', (row) => clean(row.from)], ['Action', (row) => h('code', {}, row.action), 'tight'],
    ['What', (row) => h('div', {}, h('span', { class: 'name' }, clean(row.what) || '–'), row.why && h('div', { class: 'soft' }, clean(row.why))), 'wide'],
    ['Done', (row) => row.done ? badge('good', 'yes') : badge('bad', 'no')],
  ],
})
