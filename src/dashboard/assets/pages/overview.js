// How everything is, at a glance.

import { get } from '../api.js'
import { chart } from '../chart.js'
import { badge, bytes, compact, count, h, short, show } from '../dom.js'
import * as rates from '../rates.js'
import { health, findings, healed, picture, watchCluster } from './cluster.js'

export const title = 'Overview'

const TILES = [['connections', 'Connections'], ['sessions', 'Sessions'], ['subscriptions', 'Subscriptions'], ['retained', 'Retained messages']]

export function render(place) {
  const charts = [
    chart({ title: 'Messages/s', words: short, lines: [{ key: 'in', kind: 'one', label: 'in' }, { key: 'out', kind: 'two', label: 'out' }] }),
    chart({ title: 'Bytes/s', words: bytes, isBytes: true, lines: [{ key: 'bytesIn', kind: 'one', label: 'in' }, { key: 'bytesOut', kind: 'two', label: 'out' }] }),
    chart({ title: 'Connections', words: short, lines: [{ key: 'connections', kind: 'three' }] }),
    chart({ title: 'Subscriptions', words: short, lines: [{ key: 'subscriptions', kind: 'three' }] }),
    chart({ title: 'Retained messages', words: short, lines: [{ key: 'retained', kind: 'three' }] }),
    chart({ title: 'Dropped/s', words: short, lines: [{ key: 'dropped', kind: 'bad' }] }),
  ]
  const tiles = TILES.map(([key, name]) => {
    const value = h('b', {}, '–')
    return { key, value, element: h('a', { class: 'tile card', href: `#/${key}` }, h('span', {}, name), value) }
  })
  const total = h('b', {}, '–')
  tiles.push({ key: null, element: h('div', { class: 'tile card wide' }, h('span', {}, 'Messages in / out'), total) })
  const [drawing, verdict, found, alarms] = [h('div'), h('span'), h('div'), h('p')]
  const heal = h('p', { class: 'soft' })
  const told = h('p', { class: 'error', role: 'status' })
  place.append(told,
    h('div', { class: 'tiles' }, tiles.map(({ element }) => element)),
    h('div', { class: 'charts' }, charts.map(({ element }) => element)),
    h('div', { class: 'columns' },
      h('section', { class: 'card' }, h('h2', {}, 'Cluster ', verdict), drawing),
      h('section', { class: 'card' }, h('h2', {}, 'Health'), found, h('h2', {}, 'Alarms'), alarms, h('h2', {}, 'Last heal'), heal)))

  const unwatch = rates.watch(() => {
    const { points, latest, totals, error } = rates.history
    told.textContent = error?.message ?? ''
    if (!latest) return
    for (const { key, value } of tiles) if (key) value.textContent = count(latest[key])
    total.textContent = `${compact(totals.in)} / ${compact(totals.out)}`
    charts.forEach(({ draw }) => draw(points))
  })
  charts.forEach(({ draw }) => draw(rates.history.points))
  const end = watchCluster({
    drawn: (seen) => show(drawing, picture(seen)),
    examined(of) {
      show(verdict, health(of))
      show(found, findings(of))
    },
    async mended(last) {
      heal.textContent = healed(last)
      const raised = (await get('/alarms')).data.flatMap(({ node, alarms }) => alarms.map((alarm) => ({ node, ...alarm })))
      show(alarms, raised.length ? h('a', { href: '#/alarms' }, badge('bad', raised.length === 1 ? '1 alarm' : `${raised.length} alarms`), ` ${raised[0].summary}`) : 'none')
    },
  })
  return () => { unwatch(); end() }
}
