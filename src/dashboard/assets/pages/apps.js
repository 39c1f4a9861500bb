// Programs that may use the HTTP API.

import { get, post, put, remove } from '../api.js'
import { badge, clean, h, show } from '../dom.js'
import * as forms from '../forms.js'
import { plain } from '../table.js'

export const title = 'Applications'

export function render(place) {
  const content = h('div')
  const told = h('p', { class: 'error', role: 'alert' })
  const secret = h('p', { role: 'status' })
  const id = forms.input({ required: true, pattern: '[A-Za-z0-9_.\\-]{1,64}', title: 'Letters, digits, -, _ and .' })
  const name = forms.input({ maxlength: '255' })
  const attempt = (work) => forms.attempt(told, async () => { await work(); await look() })
  const add = attempt(async () => {
    const { data } = await post('/apps', { app_id: id.value, name: name.value })
    show(secret, 'The secret of ', h('b', {}, data.app_id), ' is ', h('code', {}, data.secret), '. It is told this once.')
    id.value = name.value = ''
  })

  async function look() {
    const { data } = await get('/apps')
    show(content, plain(['Id', 'Name', 'May', ''], data.map((app) => [
      h('code', {}, app.app_id), clean(app.name), app.status ? badge('good', 'yes') : badge('bad', 'no'),
      h('div', { class: 'actions' },
        h('button', { type: 'button', class: 'quiet', onclick: attempt(() => put(`/apps/${encodeURIComponent(app.app_id)}`, { status: !app.status })) }, app.status ? 'Refuse' : 'Permit'),
        h('button', { type: 'button', class: 'quiet bad', onclick: attempt(() => remove(`/apps/${encodeURIComponent(app.app_id)}`)) }, 'Remove')),
    ]), 'No program may use the HTTP API.'))
  }
  place.append(h('p', { class: 'soft' }, 'Programs that may use the HTTP API of this node, with an id and a secret.'), told,
    h('section', { class: 'card list' }, content),
    h('form', { class: 'card', onsubmit: add }, h('h2', {}, 'Another one'),
      h('div', { class: 'grid' }, forms.field('Id', id), forms.field('Name', name)),
      h('div', { class: 'toolbar' }, h('button', { type: 'submit' }, 'Add'))), secret)
  forms.attempt(told, look)()
}
