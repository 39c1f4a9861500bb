// Who may connect and do what, as it is configured. It changes nothing.

import { get } from '../api.js'
import { badge, clean, h, show } from '../dom.js'
import { nodePicker } from './settings.js'
import { plain } from '../table.js'

export const title = 'Users and rules'

export function render(place) {
  const content = h('div', { class: 'stack' })
  place.append(nodePicker(look), content)

  async function look(node) {
    try {
      draw((await get(`/nodes/${encodeURIComponent(node)}/access`)).data)
    } catch (error) {
      show(content, h('p', { class: 'error', role: 'alert' }, error.message))
    }
  }

  function draw(of) {
    const asked = of.password_file || of.users.length
    const open = of.allow_anonymous || !asked
    const trouble = (text) => text && h('p', { class: 'error' }, text)
    show(content,
      h('section', { class: 'card' }, h('h2', {}, 'Who may connect'),
        h('p', {}, open ? badge('warn', 'without a user name') : badge('good', 'only with a password'), ' ',
          asked ? 'Passwords are checked.' : 'No password is checked: there are no users.', of.password_file ? ' File of users: ' : '', of.password_file ? h('code', {}, of.password_file) : ''),
        trouble(of.password_file_error),
        asked ? plain(['User', 'From'], of.users.map((user) => [clean(user.name), user.from === 'password_file' ? 'the file of users' : user.from]), 'The file has no users.') : null),
      h('section', { class: 'card' }, h('h2', {}, 'Who may do what'),
        h('p', {}, of.acl_file ? 'Rules, of which the first that fits decides: ' : 'There is no file of rules. ', of.acl_file ? h('code', {}, of.acl_file) : null),
        trouble(of.acl_file_error),
        of.rules.length ? h('pre', { class: 'rules', tabindex: '0' }, of.rules.map(clean).join('\n')) : null,
        h('p', {}, 'Where no rule fits: ', badge(of.acl_nomatch === 'allow' ? 'warn' : 'good', of.acl_nomatch), ' Who tries what it may not: ',
          badge('', of.acl_deny_action === 'ignore' ? 'is told and stays' : 'is disconnected'))))
  }
}
