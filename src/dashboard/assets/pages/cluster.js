// The cluster as a picture: nodes, what each sees of the others, who leads, and what is wrong.

import { get } from '../api.js'
import { badge, count, h, s, show, span } from '../dom.js'
import * as rates from '../rates.js'

export const title = 'Cluster'

const LOOK_EVERY = 3000
const EXAMINE_EVERY = 10_000

// How this node sees the cluster, and how those see it that answer.
export async function look() {
  const { data } = await get('/cluster/views')
  return { own: data[0].cluster, views: new Map(data.map(({ node, cluster }) => [node, cluster])) }
}

// The link between two nodes, as both of them see it.
function link(one, other, views) {
  const seen = [[one, other], [other, one]].map(([from, to]) => views.get(from.name)?.nodes.find((node) => node.node === to.node)).filter(Boolean)
  if (!seen.length) return null
  if (seen.every((node) => !node.up)) return 'down'
  if (seen.some((node) => !node.up)) return 'half'
  return seen.some((node) => node.relayed) ? 'relayed' : 'up'
}

const WORDS = { up: 'connected', relayed: 'over another node', half: 'connected one way', down: 'not connected' }

export function picture({ own, views }) {
  const nodes = [...own.nodes].sort((one, other) => one.name < other.name ? -1 : 1)
  const [width, height] = [420, nodes.length > 1 ? 270 : 130]
  const place = (at) => {
    if (nodes.length === 1) return [width / 2, height / 2 - 6]
    const angle = 2 * Math.PI * at / nodes.length - Math.PI / 2 + (nodes.length === 2 ? Math.PI / 2 : 0)
    return [width / 2 + Math.cos(angle) * 130, height / 2 - 4 + Math.sin(angle) * (nodes.length === 2 ? 1 : 74)]
  }
  const sessions = new Map(rates.history.nodes.map(({ node, stats }) => [node, stats]))
  const links = []
  const told = []
  nodes.forEach((one, at) => nodes.slice(at + 1).forEach((other, more) => {
    const kind = link(one, other, views)
    const [[x1, y1], [x2, y2]] = [place(at), place(at + 1 + more)]
    if (!kind) return
    links.push(s('line', { class: `link ${kind}`, x1, y1, x2, y2 }, s('title', {}, `${one.name} – ${other.name}: ${WORDS[kind]}`)))
    if (kind !== 'up') told.push(`${one.name} – ${other.name}: ${WORDS[kind]}`)
  }))
  const drawn = nodes.map((node, at) => {
    const [x, y] = place(at)
    const leads = node.node === own.leader
    const stats = sessions.get(node.name)
    const words = stats ? `${count(stats['sessions/count'])} sessions` : node.running ? '' : 'not reached'
    // Beside the links, which go to the middle.
    const label = nodes.length > 2 && y < height / 2 - 20 ? y - 48 : y + 42
    const facts = [leads ? 'leader' : node.role, node.self ? 'this node' : null].filter(Boolean).join(', ')
    return s('g', { class: `node ${node.running ? '' : 'down'} ${node.self ? 'self' : ''}` },
      leads ? s('circle', { class: 'crown', cx: x, cy: y, r: 27 }) : null,
      s('circle', { class: 'disc', cx: x, cy: y, r: 22 }),
      s('text', { class: 'mark', x, y: y + 5 }, node.running ? '✓' : '×'),
      s('text', { class: 'label', x, y: label }, node.name.length > 26 ? `${node.name.slice(0, 25)}…` : node.name),
      s('text', { class: 'small', x, y: label + 15 }, [facts, words].filter(Boolean).join(' · ')),
      s('title', {}, `${node.name}, ${node.address}: ${facts}, ${node.running ? 'running' : 'down'}`))
  })
  const summary = `${nodes.length} nodes, ${nodes.filter((node) => node.running).length} running${told.length ? `; ${told.join('; ')}` : ''}`
  return s('svg', { viewBox: `0 0 ${width} ${height}`, class: 'cluster', role: 'img', 'aria-label': summary }, links, drawn)
}

export const health = (found) => !found ? badge('', 'examining…') : found.ok ? badge('good', 'all is well')
  : badge(found.findings.some(({ severity }) => severity === 'error') ? 'bad' : 'warn', found.findings.length === 1 ? '1 finding' : `${found.findings.length} findings`)

export function findings(found) {
  if (!found.findings.length) return h('p', { class: 'soft' }, found.verdict)
  return h('ul', { class: 'findings' }, found.findings.map(({ severity, what, advice }) => h('li', {},
    badge(severity === 'error' ? 'bad' : severity === 'warning' ? 'warn' : '', severity), h('div', {}, h('b', {}, `${what}.`), h('span', { class: 'soft' }, ` ${advice[0].toUpperCase()}${advice.slice(1)}.`)))))
}

// The newest time that a node came back after it was not reached.
export async function lastHeal() {
  const { data } = await get('/alarms/history')
  const all = data.flatMap(({ node, alarms }) => alarms.filter(({ title }) => title === 'node_down').map((alarm) => ({ node, ...alarm })))
  all.sort((one, other) => one.cleared_at < other.cleared_at ? 1 : -1)
  return all[0]
}

export const healed = (alarm) => alarm ? `${alarm.id.replace('node_down/', '')} was back at ${alarm.cleared_at}, after ${span(alarm.lasted_ms / 1000)}` : 'no node was out of reach since the start'

// Looks again and again until the page is left.
export function watchCluster({ drawn, examined, mended, failed }) {
  let [over, timers] = [false, []]
  const again = async (work, every) => {
    try {
      await work()
    } catch (error) {
      if (!over) failed?.(error)
    }
    if (!over) timers.push(setTimeout(() => again(work, every), every))
    timers = timers.slice(-8)
  }
  again(async () => { const seen = await look(); if (!over) drawn(seen) }, LOOK_EVERY)
  again(async () => { const found = (await get('/cluster/doctor')).data; if (!over) examined(found) }, EXAMINE_EVERY)
  again(async () => { const last = await lastHeal(); if (!over) mended?.(last) }, LOOK_EVERY)
  return () => { over = true; timers.forEach(clearTimeout) }
}

export function render(place) {
  const [drawing, verdict, found, facts, table, heal] = ['div', 'span', 'div', 'dl', 'div', 'p'].map((tag) => h(tag))
  const told = h('p', { class: 'error', role: 'status' })
  facts.className = 'facts'
  place.append(told,
    h('div', { class: 'columns' },
      h('section', { class: 'card' }, h('h2', {}, 'Picture'), drawing, facts),
      h('section', { class: 'card' }, h('h2', {}, 'Health ', verdict), found, h('h2', {}, 'Last heal'), heal)),
    h('section', { class: 'card' }, h('h2', {}, 'Members'), table))
  return watchCluster({
    failed: (error) => { told.textContent = error.message },
    drawn(seen) {
      told.textContent = ''
      const { own } = seen
      const leader = own.nodes.find((node) => node.node === own.leader)
      show(drawing, picture(seen))
      show(facts, [['Cluster', own.name], ['Leader', leader?.name ?? 'none'], ['Term', own.term], ['Log', `${count(own.applied)} entries`]]
        .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))))
      show(table, h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Members' }, h('table', {},
        h('thead', {}, h('tr', {}, ['Name', 'State', 'Role', 'Address', 'Start', 'Routes'].map((name) => h('th', { scope: 'col' }, name)))),
        h('tbody', {}, [...own.nodes].sort((one, other) => one.name < other.name ? -1 : 1).map((node) => h('tr', {},
          h('td', {}, node.name, node.self ? h('span', { class: 'soft' }, ' (this node)') : null),
          h('td', {}, node.running ? badge('good', node.relayed ? 'running, relayed' : 'running') : badge('bad', 'not reached')),
          h('td', {}, node.node === own.leader ? 'leader' : node.role), h('td', {}, node.address), h('td', {}, count(node.incarnation)),
          h('td', {}, node.routes)))))))
    },
    examined(of) {
      show(verdict, health(of))
      show(found, findings(of))
    },
    mended: (last) => show(heal, healed(last)),
  })
}
