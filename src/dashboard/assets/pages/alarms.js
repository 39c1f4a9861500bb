// What is wrong, and what was.

import { get } from '../api.js'
import { badge, h, show, span } from '../dom.js'
import { plain } from '../table.js'

export const title = 'Alarms'

const flat = (data) => data.flatMap(({ node, alarms }) => alarms.map((alarm) => ({ node, ...alarm })))
const kind = (alarm) => badge(alarm.severity === 'critical' ? 'bad' : 'warn', alarm.severity)

export function render(place) {
  const [now, past] = [h('div'), h('div')]
  const told = h('p', { class: 'error', role: 'status' })
  place.append(told, h('section', { class: 'card' }, h('h2', {}, 'Raised'), now), h('section', { class: 'card' }, h('h2', {}, 'Over'), past),
    h('p', { class: 'soft' }, 'When an alarm is raised is configured by alarm.*, see the settings. Each is also published to $SYS/brokers/NODE/alarms/alert and clear.'))
  let timer = null
  const look = async () => {
    try {
      const [raised, over] = (await Promise.all([get('/alarms'), get('/alarms/history')])).map(({ data }) => flat(data))
      over.sort((one, other) => one.cleared_at < other.cleared_at ? 1 : -1)
      show(now, plain(['', 'What', 'Node', 'Since'], raised.map((alarm) => [kind(alarm), alarm.summary, alarm.node, alarm.raised_at]), 'Nothing is wrong.'))
      show(past, plain(['', 'What', 'Node', 'From', 'For'], over.map((alarm) => [kind(alarm), alarm.summary, alarm.node, alarm.raised_at, span(alarm.lasted_ms / 1000)]), 'Nothing was wrong since the start.'))
      told.textContent = ''
    } catch (error) {
      told.textContent = error.message
    }
    if (timer !== false) timer = setTimeout(look, 3000)
  }
  look()
  return () => { clearTimeout(timer); timer = false }
}
