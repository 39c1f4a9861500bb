// Where clients connect, at every node.

import { get } from '../api.js'
import { count, h, show } from '../dom.js'
import { plain } from '../table.js'

export const title = 'Listeners'

const NAMES = { tcp: 'TCP', ssl: 'TLS', ws: 'WebSocket', wss: 'WebSocket, TLS', sn: 'MQTT-SN, UDP' }

export function render(place) {
  const content = h('div', { class: 'stack' })
  place.append(content)
  let timer = null
  const look = async () => {
    try {
      const { data } = await get('/listeners')
      show(content, data.map(({ node, listeners }) => h('section', { class: 'card' }, h('h2', {}, node),
        plain(['Transport', 'Name', 'Address', 'Connections', 'Most'], listeners.map((one) => [
          NAMES[one.protocol.split(':')[1]] ?? one.protocol, one.name, h('code', {}, one.listen_on), count(one.current_conns), count(one.max_conns),
        ]), 'It has none.', ['', '', '', 'number', 'number']))))
    } catch (error) {
      show(content, h('p', { class: 'error', role: 'alert' }, error.message))
    }
    if (timer !== false) timer = setTimeout(look, 5000)
  }
  look()
  return () => { clearTimeout(timer); timer = false }
}
