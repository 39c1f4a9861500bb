// Who may not connect, and until when. The whole cluster has it.

import { post, remove } from '../api.js'
import { clean, h } from '../dom.js'
import { ask, attempt, field, input, picker } from '../forms.js'
import { list } from '../table.js'

export const title = 'Banned'

const KINDS = { client_id: 'Client id', username: 'User name', ip_address: 'Address' }
const TIMES = { 600: '10 minutes', 3600: '1 hour', 86400: '1 day', 604800: '7 days', '': 'for ever', until: 'until a time…' }

const now = () => Math.floor(Date.now() / 1000)
const time = (unix) => new Date(unix * 1000).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' })

// `argument` may say whom: a kind, and after a `/` who.
export function render(place, argument) {
  const cut = argument.indexOf('/')
  const told = h('p', { class: 'error', role: 'alert' })
  const done = h('p', { class: 'good', role: 'status' })
  const kind = picker({ name: 'as' }, KINDS)
  const who = input({ name: 'who', required: true, maxlength: '490', value: argument.slice(cut + 1) })
  const lasts = picker({ name: 'time', onchange: () => { until.hidden = lasts.value !== 'until' } }, TIMES)
  const end = input({ name: 'until', type: 'datetime-local' })
  const until = field('Until', end)
  const reason = input({ name: 'reason', maxlength: '256' })
  kind.value = argument.slice(0, Math.max(cut, 0)) in KINDS ? argument.slice(0, cut) : 'client_id'
  lasts.value = '3600'
  until.hidden = true

  function ending() {
    if (lasts.value === '') return null
    if (lasts.value !== 'until') return now() + Number(lasts.value)
    if (!end.value) throw new Error('Until when?')
    return Math.floor(new Date(end.value).getTime() / 1000)
  }

  const add = attempt(told, async () => {
    done.textContent = ''
    await post('/banned', { as: kind.value, who: who.value, reason: reason.value, until: ending() })
    done.textContent = `${clean(who.value)} is banned.`
    who.value = reason.value = ''
    rows.refresh()
  })

  const lift = (ban, refresh) => ask({
    title: 'End the ban?', text: [h('b', {}, clean(ban.who)), ' may connect again.'],
    button: 'End it', work: async () => { await remove(`/banned/${encodeURIComponent(ban.who)}?as=${ban.as}`); refresh() },
  })

  const rows = list({
    path: '/banned', empty: 'Nobody is banned.',
    search: { label: 'Who or why', text: (row) => `${row.who} ${row.reason} ${row.by}` },
    columns: [
      ['Who', (row) => h('span', { class: 'name' }, clean(row.who)), 'wide'], ['Kind', (row) => KINDS[row.as] ?? row.as, 'tight'], ['Why', (row) => clean(row.reason) || '–'], ['By', (row) => clean(row.by)],
      ['Since', (row) => time(row.at), 'tight'], ['Until', (row) => row.until === null ? 'for ever' : time(row.until), 'tight'],
    ],
    actions: (row, refresh) => h('button', { type: 'button', class: 'quiet bad', 'aria-label': `End the ban of ${clean(row.who)}`, onclick: () => lift(row, refresh) }, 'End'),
  })
  place.append(h('p', { class: 'soft' }, 'Who may not connect, at any node. Who is connected is sent away when it is banned.'), told,
    h('form', { class: 'card', onsubmit: add, autocomplete: 'off' }, h('h2', {}, 'Another ban'),
      h('div', { class: 'grid' }, field('Kind', kind), field('Who; 192.0.2.0/24 is a network', who), field('For', lasts), until, field('Why', reason)),
      h('div', { class: 'toolbar' }, h('button', { type: 'submit' }, 'Ban'), done)), rows.element)
}
