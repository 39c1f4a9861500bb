// User names and Client Identifiers with passwords that were added while it runs. The whole cluster has them.

import { post, put, remove } from '../api.js'
import { clean, h } from '../dom.js'
import { ask, attempt, field, input } from '../forms.js'
import { list } from '../table.js'

export const title = 'Accounts'

const KINDS = {
  username: { path: '/auth_username', key: 'username', one: 'User name', some: 'User names', about: 'Users who log in with a password, at any node.' },
  clientid: { path: '/auth_clientid', key: 'clientid', one: 'Client id', some: 'Client ids', about: 'Client identifiers that need a password, at any node.' },
}

const password = () => input({ name: 'password', type: 'password', required: true, maxlength: '4096', autocomplete: 'new-password' })

export function render(place, argument) {
  const kind = KINDS[argument] ?? KINDS.username
  const told = h('p', { class: 'error', role: 'alert' })
  const done = h('p', { class: 'good', role: 'status' })
  const [name, secret] = [input({ name: 'name', required: true, maxlength: '500' }), password()]
  const where = (of) => `${kind.path}/${encodeURIComponent(of)}`

  const add = attempt(told, async () => {
    done.textContent = ''
    await post(kind.path, { [kind.key]: name.value, password: secret.value })
    done.textContent = `${clean(name.value)} may log in.`
    name.value = secret.value = ''
    rows.refresh()
  })

  function change(of) {
    const wanted = password()
    ask({
      title: 'Another password', text: [h('b', {}, clean(of)), ' logs in with it from then on. Open connections stay.'],
      fields: field('New password', wanted), button: 'Change', kind: 'main', work: () => put(where(of), { password: wanted.value }),
    })
  }

  const drop = (of, refresh) => ask({
    title: `Remove this ${kind.one.toLowerCase()}?`, text: [h('b', {}, clean(of)), ' may not log in any more, and its connections end.'],
    button: 'Remove', work: async () => { await remove(where(of)); refresh() },
  })

  const rows = list({
    path: kind.path, empty: 'There is none.',
    search: { label: kind.one, text: (row) => row[kind.key] },
    columns: [[kind.one, (row) => h('span', { class: 'name' }, clean(row[kind.key]))]],
    actions: ({ [kind.key]: of }, refresh) => h('div', { class: 'actions' },
      h('button', { type: 'button', class: 'quiet', 'aria-label': `Change the password of ${clean(of)}`, onclick: () => change(of) }, 'Password'),
      h('button', { type: 'button', class: 'quiet bad', 'aria-label': `Remove ${clean(of)}`, onclick: () => drop(of, refresh) }, 'Remove')),
  })
  place.append(
    h('div', { class: 'tabs', role: 'navigation', 'aria-label': 'Kinds of accounts' }, Object.values(KINDS).map((of) =>
      h('a', { href: `#/accounts/${of.key}`, 'aria-current': of === kind ? 'page' : undefined }, of.some))),
    h('p', { class: 'soft' }, kind.about, ' Those of the file of users are with the rules.'), told,
    h('form', { class: 'card', onsubmit: add, autocomplete: 'off' }, h('h2', {}, 'Another one'),
      h('div', { class: 'grid' }, field(kind.one, name), field('Password', secret)),
      h('div', { class: 'toolbar' }, h('button', { type: 'submit' }, 'Add'), done)), rows.element)
}
