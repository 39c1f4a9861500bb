// What forms have in common: fields, work that may fail, and a question before something is done.

import { h } from './dom.js'

// Nothing that a browser knows better than who types.
export const input = (attributes) => h('input', { spellcheck: 'false', autocomplete: 'off', autocapitalize: 'none', ...attributes })
export const field = (label, control) => h('label', { class: 'field' }, h('span', {}, label), control)
export const picker = (attributes, options) => h('select', attributes, Object.entries(options).map(([value, text]) => h('option', { value }, text)))

// Does some work of a form or a button; `told` says why it has failed.
export const attempt = (told, work) => async (event) => {
  event?.preventDefault()
  told.textContent = ''
  try {
    await work()
  } catch (error) {
    told.textContent = error.message
  }
}

// Asks first: a click may have been a mistake, or something has still to be said.
export function ask({ title, text, fields, button, kind = 'main bad', work }) {
  const told = h('p', { class: 'error', role: 'alert' })
  const dialog = h('dialog', { 'aria-label': title, onclose: () => dialog.remove() },
    h('form', { onsubmit: attempt(told, async () => { await work(); dialog.close() }) },
      h('h2', {}, title), h('p', {}, text), fields, told,
      h('div', { class: 'toolbar' }, h('span', { class: 'grow' }), h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel'),
        h('button', { type: 'submit', class: kind }, button))))
  document.body.append(dialog)
  dialog.showModal()
}
