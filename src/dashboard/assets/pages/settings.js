// The configuration that holds, key by key; and the password of the dashboard.

import { get, session } from '../api.js'
import { badge, h, show } from '../dom.js'
import { passwordForm } from '../login.js'
import * as rates from '../rates.js'
import { plain } from '../table.js'

export const title = 'Settings'

// Chooses a node, first this one.
export function nodePicker(chosen) {
  const own = session.current.node
  const names = new Set([own, ...rates.history.nodes.map(({ node }) => node)])
  const select = h('select', { 'aria-label': 'Node', onchange: () => chosen(select.value) }, [...names].map((name) => h('option', { value: name }, name)))
  queueMicrotask(() => chosen(own))
  return h('label', { class: 'field inline' }, h('span', {}, 'Node'), select)
}

export function render(place) {
  const content = h('div')
  const field = h('input', { type: 'search', 'aria-label': 'Key or words', placeholder: 'Key or words', spellcheck: 'false', oninput: draw })
  const only = h('input', { type: 'checkbox', onchange: draw })
  const told = h('p', { class: 'told', role: 'status' })
  const changed = h('p', { class: 'good', role: 'status' })
  let all = []
  place.append(
    h('section', { class: 'card list' }, h('h2', {}, 'Configuration'),
      h('div', { class: 'toolbar' }, nodePicker(look), h('div', { class: 'search' }, field), h('label', { class: 'check' }, only, ' only what is set')), content, told),
    h('section', { class: 'card' }, h('h2', {}, 'Password of the dashboard'), passwordForm({
      done: () => { changed.textContent = 'The password is changed. Other logins have ended.' },
      text: 'It is that of this node alone.',
    }), changed))

  async function look(node) {
    try {
      all = (await get(`/nodes/${encodeURIComponent(node)}/configs`)).data
      draw()
    } catch (error) {
      told.textContent = error.message
    }
  }

  function draw() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean)
    const fits = ({ key, value, about, set }) => (set || !only.checked) && words.every((word) => `${key} ${value} ${about}`.toLowerCase().includes(word))
    const found = all.filter(fits)
    show(content, plain(['Key', 'Value', 'A reload changes it'], found.map((of) => [
      h('details', {}, h('summary', {}, h('code', {}, of.key)), h('p', { class: 'soft' }, of.about.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1'))),
      h('span', {}, h('code', { class: of.set ? 'set' : 'default' }, of.value || 'none'), of.set ? ' ' : null, of.set ? badge('', 'set') : null),
      of.reloadable ? badge('good', 'yes') : 'no, a restart',
    ]), 'No key fits.'))
    told.textContent = `${found.length} of ${all.length} keys. What is not set has its default. A file is read again with “newtmq ctl reload”.`
  }
}
