// What happens to a client or to messages of topics, as it happens.

import { get, post, remove } from '../api.js'
import { clean, count, h, show } from '../dom.js'
import { attempt, field, input, picker } from '../forms.js'
import { plain } from '../table.js'

export const title = 'Traces'

const KINDS = { client: 'Client id', topic: 'Topic filter' }
const SHOWN = 200
const EVERY_MS = 1500

const path = ({ kind, what }) => `/traces/${kind}/${encodeURIComponent(what)}`
const page = ({ kind, what }) => `#/traces/${encodeURIComponent(`${kind}/${what}`)}`
const start = (of) => post('/traces', { kind: of.kind, what: of.what })

// `argument` is the kind of a trace, and after a `/` what is traced; without it all are listed.
export function render(place, argument) {
  const cut = argument.indexOf('/')
  const one = { kind: argument.slice(0, cut), what: argument.slice(cut + 1) }
  return one.kind in KINDS ? view(place, one) : all(place)
}

// ---- all ----

function all(place) {
  const told = h('p', { class: 'error', role: 'alert' })
  const content = h('div')
  const [kind, what] = [picker({ name: 'kind' }, KINDS), input({ name: 'what', required: true })]
  const begin = attempt(told, async () => {
    await start({ kind: kind.value, what: what.value })
    location.hash = page({ kind: kind.value, what: what.value })
  })

  async function look() {
    const { data } = await get('/traces')
    show(content, plain(['What', 'Kind', 'Since', 'Records', ''], data.map((of) => [
      h('a', { class: 'name', href: page(of) }, clean(of.what)), KINDS[of.kind], of.started, count(of.records),
      h('div', { class: 'actions' }, h('button', {
        type: 'button', class: 'quiet bad', 'aria-label': `Stop the trace of ${clean(of.what)}`, onclick: attempt(told, async () => { await remove(path(of)); await look() }),
      }, 'Stop')),
    ]), 'Nothing is traced.', ['', '', '', 'number', '']))
  }

  place.append(h('p', { class: 'soft' }, 'What happens to a client, or to messages of topics, at every node. A trace ends after an hour; a node keeps its last 1000 records, which it counts here.'), told,
    h('form', { class: 'card', onsubmit: begin, autocomplete: 'off' }, h('h2', {}, 'Another trace'),
      h('div', { class: 'grid' }, field('Kind', kind), field('Client id or filter', what)),
      h('div', { class: 'toolbar' }, h('button', { type: 'submit' }, 'Start'))),
    h('section', { class: 'card list' }, content))
  attempt(told, look)()
}

// ---- one ----

function view(place, one) {
  const told = h('p', { class: 'error', role: 'alert' })
  const content = h('div', { id: 'records' })
  const tally = h('p', { class: 'told', role: 'status' })
  const search = input({ type: 'search', 'aria-label': 'Words of a record', placeholder: 'Words of a record', oninput: () => draw() })
  const pause = h('button', { type: 'button', 'aria-pressed': 'false', class: 'quiet', onclick: () => hold(pause.getAttribute('aria-pressed') === 'false') }, 'Pause')
  const begin = h('button', { type: 'button', hidden: true, onclick: attempt(told, async () => { await start(one); await look() }) }, 'Start')
  const stop = h('button', { type: 'button', class: 'quiet bad', hidden: true, onclick: attempt(told, async () => { await remove(path(one)); await look() }) }, 'Stop')
  let records = []
  let timer = null

  function hold(held) {
    pause.setAttribute('aria-pressed', String(held))
    pause.textContent = held ? 'Go on' : 'Pause'
  }

  // What a search wants, the latest first.
  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean)
    const text = (of) => `${of.time} ${of.node} ${of.event} ${of.client_id} ${of.topic ?? ''} ${of.why}`.toLowerCase()
    const found = records.filter((of) => words.every((word) => text(of).includes(word)))
    show(content, plain(['Time', 'Event', 'Client id', 'Topic', 'QoS', 'Why', 'Node'], found.slice(-SHOWN).reverse().map((of) => [
      of.time.split(' ').at(-1), h('code', {}, of.event), h('a', { class: 'name', href: `#/client/${encodeURIComponent(of.client_id)}` }, clean(of.client_id)),
      of.topic === null ? '–' : h('code', {}, clean(of.topic)), of.qos === null ? '–' : String(of.qos), [of.waits && 'waits', clean(of.why)].filter(Boolean).join(', ') || '–', of.node,
    ]), 'Nothing has happened yet.'))
    tally.textContent = `${count(found.length)} of ${count(records.length)} records${found.length > SHOWN ? `; the latest ${SHOWN} are shown` : ''}`
  }

  async function look() {
    const listed = (await get('/traces')).data.some(({ kind, what }) => kind === one.kind && what === one.what)
    begin.hidden = listed
    stop.hidden = pause.hidden = !listed
    if (listed) records = (await get(path(one))).data
    draw()
    if (!listed) tally.textContent = records.length ? 'The trace has ended; what was seen of it is still here.' : 'It is not traced.'
  }

  async function again() {
    if (pause.getAttribute('aria-pressed') === 'false' && !document.hidden) await attempt(told, look)()
    if (timer !== false) timer = setTimeout(again, EVERY_MS)
  }

  // A line of JSON for each record.
  function download() {
    const text = records.map((of) => `${JSON.stringify(of)}\n`).join('')
    const url = URL.createObjectURL(new Blob([text], { type: 'application/jsonl' }))
    h('a', { href: url, download: `trace-${one.kind}-${one.what.replace(/[^A-Za-z0-9._-]+/g, '_')}.jsonl` }).click()
    setTimeout(() => URL.revokeObjectURL(url), 1000)
  }

  place.append(h('p', {}, h('a', { href: '#/traces' }, '← Traces'), '  ', KINDS[one.kind], ' ', h('b', { class: 'name' }, clean(one.what))), told,
    h('section', { class: 'card list' },
      h('div', { class: 'toolbar' }, h('div', { class: 'search' }, search), h('span', { class: 'grow' }), pause, begin, stop,
        h('button', { type: 'button', class: 'quiet', onclick: download }, 'Download')),
      content, h('div', { class: 'foot' }, tally)))
  again()
  return () => { clearTimeout(timer); timer = false }
}
