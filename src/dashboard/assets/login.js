// Logging in, and choosing a password.

import { changePassword, logIn } from './api.js'
import { h } from './dom.js'

const field = (label, attributes) => {
  const input = h('input', { required: true, spellcheck: 'false', autocapitalize: 'none', maxlength: '256', ...attributes })
  return { input, element: h('label', { class: 'field' }, h('span', {}, label), input) }
}

function form({ title, text, fields, button, submit }) {
  const told = h('p', { class: 'error', role: 'alert' })
  const send = h('button', { type: 'submit', class: 'main' }, button)
  const element = h('form', {
    class: 'card form',
    onsubmit: async (event) => {
      event.preventDefault()
      send.disabled = true
      told.textContent = ''
      try {
        await submit()
      } catch (error) {
        told.textContent = error.message
      } finally {
        send.disabled = false
      }
    },
  }, title && h('h1', {}, title), text && h('p', { class: 'soft' }, text), fields, send, told)
  return element
}

const stage = (content) => h('main', { class: 'stage', id: 'main', tabindex: '-1' },
  h('div', { class: 'brand' }, h('img', { src: '/icon.svg', alt: '', width: '36', height: '36' }), h('span', {}, 'NewtMQ')), content)

export function loginPage(done, why) {
  const name = field('User', { name: 'username', autocomplete: 'username' })
  const password = field('Password', { type: 'password', name: 'password', autocomplete: 'current-password' })
  const page = stage(form({
    title: 'Log in',
    text: why ?? 'The first login is that of admin with the password public, on the machine of the broker.',
    fields: [name.element, password.element],
    button: 'Log in',
    submit: async () => done(await logIn(name.input.value, password.input.value), password.input.value),
  }))
  queueMicrotask(() => name.input.focus())
  return page
}

// `old` is known if it has just been entered.
export function passwordForm({ title, text, old, done, button }) {
  const before = field('Old password', { type: 'password', name: 'old', autocomplete: 'current-password' })
  const after = field('New password, at least 8 characters', { type: 'password', name: 'new', autocomplete: 'new-password', minlength: '8' })
  const again = field('New password again', { type: 'password', name: 'again', autocomplete: 'new-password', minlength: '8' })
  return form({
    title, text, button: button ?? 'Change the password',
    fields: [old === undefined ? before.element : null, after.element, again.element],
    submit: async () => {
      if (after.input.value !== again.input.value) throw new Error('The two new passwords are not the same.')
      const told = await changePassword(old ?? before.input.value, after.input.value)
      for (const { input } of [before, after, again]) input.value = ''
      done(told)
    },
  })
}

export function firstPasswordPage(old, done) {
  const page = stage(passwordForm({
    title: 'Choose a password',
    text: 'The first password has to be changed before anything else.',
    old, done,
  }))
  queueMicrotask(() => page.querySelector('input')?.focus())
  return page
}
