// A list that may be long: a page of it at a time from the broker, and a search.

import { get } from './api.js'
import { count, h, show } from './dom.js'

const PAGE = 50
const LOOKED_AT = 10_000

// `columns` are [title, cell, class]; `row` is what the broker tells. `search` is { label, paths(text), text(row) }: paths that
// answer for exactly this text, and what of a row is searched otherwise.
export function list({ path, columns, search, empty, actions, onRow, note }) {
  const state = { page: 1, text: '', count: 0, turn: 0 }
  const body = h('tbody')
  const told = h('p', { class: 'told', role: 'status' })
  const back = h('button', { type: 'button', class: 'quiet', onclick: () => go(state.page - 1) }, '← Back')
  const on = h('button', { type: 'button', class: 'quiet', onclick: () => go(state.page + 1) }, 'Next →')
  const field = search && h('input', { type: 'search', 'aria-label': search.label, placeholder: search.label, spellcheck: 'false', autocomplete: 'off' })
  const head = h('tr', {}, columns.map(([title, , kind]) => h('th', { scope: 'col', class: kind }, title)), actions ? h('th', { scope: 'col' }, h('span', { class: 'hidden' }, 'What can be done')) : null)
  const element = h('section', { class: 'card list' },
    h('div', { class: 'toolbar' },
      search && h('form', { role: 'search', class: 'search', onsubmit: (event) => { event.preventDefault(); state.text = field.value.trim(); go(1) } },
        field, h('button', { type: 'submit' }, 'Search'),
        h('button', { type: 'button', class: 'quiet', onclick: () => { field.value = ''; state.text = ''; go(1) } }, 'Clear')),
      h('span', { class: 'grow' }),
      h('button', { type: 'button', class: 'quiet', onclick: () => go(state.page) }, 'Refresh')),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'The list' }, h('table', {}, h('thead', {}, head), body)),
    h('div', { class: 'foot' }, told, h('span', { class: 'grow' }), back, on))

  async function rows() {
    if (!state.text) {
      const answer = await get(`${path}?_page=${state.page}&_limit=${PAGE}`)
      return { rows: answer.data, count: answer.meta?.count ?? answer.data.length, missing: answer.meta?.missing }
    }
    for (const exact of search.paths?.(state.text) ?? []) {
      const { data } = await get(exact)
      if (data.length) return { rows: data.slice(0, 500), count: data.length }
    }
    const answer = await get(`${path}?_page=1&_limit=${LOOKED_AT}`)
    const wanted = state.text.toLowerCase()
    const found = answer.data.filter((row) => search.text(row).toLowerCase().includes(wanted))
    const some = (answer.meta?.count ?? 0) > LOOKED_AT ? `; of ${count(answer.meta.count)} the first ${count(LOOKED_AT)} were looked at` : ''
    return { rows: found.slice(0, 500), count: found.length, missing: answer.meta?.missing, some }
  }

  async function go(page) {
    state.page = Math.max(1, page)
    const turn = ++state.turn
    try {
      const found = await rows()
      if (turn !== state.turn) return
      show(body, found.rows.map((row) => h('tr', {},
        columns.map(([title, cell, kind]) => h('td', { class: kind, 'data-title': title }, cell(row))),
        actions && h('td', { class: 'actions' }, actions(row, () => go(state.page))))))
      if (!found.rows.length) show(body, h('tr', {}, h('td', { class: 'empty', colspan: String(columns.length + (actions ? 1 : 0)) }, state.text ? `Nothing matches “${state.text}”.` : empty)))
      const from = (state.page - 1) * PAGE
      const whole = state.text ? `${count(found.count)} found${found.some ?? ''}` : found.rows.length ? `${count(from + 1)}–${count(from + found.rows.length)} of ${count(found.count)}` : `${count(found.count)} in all`
      told.textContent = [whole, ...(found.missing ?? []).map((node) => `${node} does not answer`), note].filter(Boolean).join(' · ')
      back.disabled = Boolean(state.text) || state.page === 1
      on.disabled = Boolean(state.text) || from + found.rows.length >= found.count || !found.rows.length
    } catch (error) {
      if (turn === state.turn) told.textContent = error.message
    }
  }
  go(1)
  return { element, refresh: () => go(state.page) }
}

// A table of what is here already.
export function plain(titles, rows, empty, kinds = []) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': titles.filter(Boolean).join(', ') }, h('table', {},
    h('thead', {}, h('tr', {}, titles.map((title, at) => h('th', { scope: 'col', class: kinds[at] }, title)))),
    h('tbody', {}, rows.length ? rows.map((row) => h('tr', {}, row.map((cell, at) => h('td', { class: kinds[at], 'data-title': titles[at] }, cell))))
      : h('tr', {}, h('td', { class: 'empty', colspan: String(titles.length) }, empty)))))
}
