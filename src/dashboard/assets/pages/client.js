// One client: its connection, its session, its subscriptions.

import { get, remove } from '../api.js'
import { badge, bytes, clean, count, h, show, since, span, yes } from '../dom.js'
import { ask } from '../forms.js'
import { plain } from '../table.js'

export const title = 'Client'

export const kick = (id, done) => ask({
  title: 'End the connection?', text: ['The client ', h('b', {}, clean(id)), ' is disconnected. Its session stays, and it may come back at once.'],
  button: 'Kick', work: async () => { await remove(`/connections/${encodeURIComponent(id)}`); setTimeout(done, 150) },
})

const facts = (pairs) => h('dl', { class: 'facts wide' }, pairs.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))))

export function render(place, id) {
  const content = h('div', { class: 'stack' }, h('p', { class: 'soft' }, 'Looking…'))
  place.append(h('p', {}, h('a', { href: '#/connections' }, '← Connections'), '  ', h('b', { class: 'name' }, clean(id)), ' · ',
    h('a', { href: `#/traces/${encodeURIComponent(`client/${id}`)}` }, 'Trace'), ' · ', h('a', { href: `#/banned/${encodeURIComponent(`client_id/${id}`)}` }, 'Ban')), content)
  const path = encodeURIComponent(id)

  async function look() {
    try {
      const [connection, session, own] = await Promise.all([get(`/connections/${path}`), get(`/sessions/${path}`), get(`/subscriptions/${path}?_limit=1000`)])
      draw(connection.data[0], session.data[0], own.data)
    } catch (error) {
      show(content, h('p', { class: 'error', role: 'alert' }, error.message))
    }
  }

  function draw(connection, session, own) {
    show(content,
      h('section', { class: 'card' }, h('h2', {}, 'Connection ', connection ? badge('good', 'connected') : badge('', 'away')),
        connection && facts([
          ['User', clean(connection.username ?? '–')], ['From', `${connection.ipaddress}:${connection.port}`], ['Node', connection.node], ['Listener', connection.listener],
          ['Zone', connection.zone], ['Protocol', `${connection.proto_name}, version ${connection.proto_ver}`], ['Keep alive', connection.keepalive ? span(connection.keepalive) : 'none'],
          ['Connected', `${connection.connected_at}, ${since(connection.connected_unix)} ago`], ['Clean start', yes(connection.clean_start)],
          ['Output that waits', bytes(connection.output_bytes)], ['Input is held', yes(connection.held)], ['Output does not move', yes(connection.stalled)],
        ]),
        connection && h('div', { class: 'toolbar' }, h('button', { type: 'button', class: 'main bad', onclick: () => kick(id, look) }, 'Kick'), h('button', { type: 'button', class: 'quiet', onclick: look }, 'Refresh'))),
      h('section', { class: 'card' }, h('h2', {}, 'Session'), session ? facts([
        ['Node', session.node], ['Since', session.created_at], ['Expires after', session.expiry_interval ? span(session.expiry_interval) : 'its connection'], ['Stored', yes(session.durable)],
        ['In flight', `${count(session.inflight_len)} of ${count(session.max_inflight)}`], ['Queue', `${count(session.mqueue_len)} of ${count(session.max_mqueue)}`],
        ['QoS 2 to be released', count(session.awaiting_rel_len)], ['Subscriptions', count(session.subscriptions_count)],
      ]) : h('p', { class: 'soft' }, 'There is none.')),
      h('section', { class: 'card' }, h('h2', {}, 'Subscriptions'), plain(['Filter', 'QoS', 'Node'], own.map((row) => [h('code', {}, clean(row.topic)), row.qos, row.node]), 'It has subscribed nothing.', ['', 'number', ''])))
  }
  look()
}
