// The frame around the pages: who has logged in, the menu, the theme, and which page the address says.

import { logOut, session, who } from './api.js'
import { h, show } from './dom.js'
import { firstPasswordPage, loginPage } from './login.js'
import { GROUPS, OTHERS, PAGES } from './pages.js'
import * as rates from './rates.js'

const app = document.getElementById('app')
const THEMES = ['auto', 'light', 'dark']
let leave = null

// ---- theme ----

function storedTheme() {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem('theme')) ?? 'auto'
  } catch {
    return 'auto'
  }
}

function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
  try {
    localStorage.setItem('theme', theme)
  } catch {
    // It holds until the page is left.
  }
}

const themeSwitch = () => h('label', { class: 'theme' }, h('span', { class: 'hidden' }, 'Theme'),
  h('select', { 'aria-label': 'Theme', onchange: (event) => setTheme(event.target.value) },
    THEMES.map((theme) => h('option', { value: theme, selected: theme === storedTheme() }, { auto: 'Theme: auto', light: 'Light', dark: 'Dark' }[theme]))))

// ---- login ----

function entered(told, password) {
  session.current = told
  if (told.must_change) show(app, firstPasswordPage(password, (told) => entered(told)))
  else frame()
}

function leavePage() {
  leave?.()
  leave = null
}

function login(why) {
  leavePage()
  rates.stop()
  session.current = null
  document.title = 'Log in · NewtMQ'
  show(app, loginPage(entered, why))
}

// ---- frame ----

function frame() {
  const { node, version, user } = session.current
  const nav = h('nav', { 'aria-label': 'Pages', id: 'menu' }, GROUPS.map(([group, pages]) => h('section', {},
    h('h2', {}, group), h('ul', {}, Object.entries(pages).map(([id, page]) => h('li', {}, h('a', { href: `#/${id}`, 'data-page': id }, page.title)))))))
  const menu = h('button', {
    type: 'button', class: 'menu quiet', 'aria-controls': 'menu', 'aria-expanded': 'false',
    onclick: () => menu.setAttribute('aria-expanded', String(app.classList.toggle('open'))),
  }, 'Menu')
  const state = h('a', { class: 'state bad', href: '#/alarms', hidden: true })
  show(app,
    h('a', { class: 'skip', href: '#main', onclick: (event) => { event.preventDefault(); document.getElementById('main').focus() } }, 'Skip to the page'),
    h('header', { class: 'top' }, menu,
      h('a', { class: 'brand', href: '#/overview' }, h('img', { src: '/icon.svg', alt: '', width: '26', height: '26' }), h('span', {}, 'NewtMQ')),
      h('span', { class: 'node', title: `version ${version}` }, node), h('span', { class: 'grow' }), state, themeSwitch(),
      h('button', { type: 'button', class: 'quiet', title: `Logged in as ${user}`, onclick: () => logOut().finally(() => login('You have logged out.')) }, 'Log out')),
    h('div', { class: 'body' }, nav, h('main', { id: 'main', tabindex: '-1' })))
  rates.start()
  rates.watch(() => {
    state.textContent = rates.history.error ? '● no answer' : ''
    state.hidden = !rates.history.error
  })
  turn()
}

function turn() {
  const place = document.getElementById('main')
  if (!session.current || session.current.must_change || !place) return
  const [id, ...rest] = location.hash.replace(/^#\//, '').split('/')
  const page = PAGES[id]
  if (!page) {
    location.replace('#/overview')
    return
  }
  leavePage()
  let argument = ''
  try {
    argument = decodeURIComponent(rest.join('/'))
  } catch {
    // It was typed by somebody.
  }
  document.title = `${page.title} · NewtMQ`
  app.classList.remove('open')
  app.querySelector('button.menu')?.setAttribute('aria-expanded', 'false')
  for (const link of app.querySelectorAll('nav a')) {
    if (link.dataset.page === (OTHERS[id] ? 'connections' : id)) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  place.scrollTop = 0
  window.scrollTo(0, 0)
  show(place, h('h1', {}, page.title))
  leave = page.render(place, argument) ?? null
  if (document.activeElement && document.activeElement !== document.body) place.focus({ preventScroll: true })
}

window.addEventListener('hashchange', turn)
window.addEventListener('logged-out', () => login('The login is over; please log in again.'))
setTheme(storedTheme())
who().then((told) => told.must_change ? login('The first password has still to be changed: log in with it again.') : entered(told), () => login())
