// What goes through the cluster: asks for the counters of all nodes every two seconds while the dashboard is open, and keeps
// the last five minutes of rates, whichever page is shown.

import { get } from './api.js'

const EVERY = 2000
const KEPT = 150

export const RATES = {
  in: 'messages/received', out: 'messages/sent', bytesIn: 'bytes/received', bytesOut: 'bytes/sent', dropped: 'messages/dropped',
}
export const LEVELS = {
  connections: 'connections/count', sessions: 'sessions/count', subscriptions: 'subscriptions/count', retained: 'retained/count',
}

export const history = { points: [], nodes: [], latest: null, error: null }
const listeners = new Set()
let timer = null
let before = null

export function watch(listener) {
  listeners.add(listener)
  if (history.points.length || history.error) listener()
  return () => listeners.delete(listener)
}

async function look() {
  try {
    const [metrics, stats] = await Promise.all([get('/metrics'), get('/stats')])
    take(performance.now(), metrics.data, stats.data)
    history.error = null
  } catch (error) {
    history.error = error
  }
  if (!timer) return
  listeners.forEach((listener) => listener())
  timer = setTimeout(look, document.hidden ? EVERY * 5 : EVERY)
}

function take(at, metrics, stats) {
  const now = new Map(metrics.map(({ node, metrics }) => [node, metrics]))
  const point = { at: Date.now() }
  if (before) {
    const seconds = (at - before.at) / 1000
    for (const [name, key] of Object.entries(RATES)) {
      // A node that has come or was started anew has counted nothing that can be compared.
      point[name] = [...now].reduce((sum, [node, of]) => sum + Math.max(0, of[key] - (before.of.get(node)?.[key] ?? of[key])), 0) / seconds
    }
  }
  for (const [name, key] of Object.entries(LEVELS)) point[name] = stats.reduce((sum, { stats }) => sum + (stats[key] ?? 0), 0)
  history.nodes = stats
  history.totals = Object.fromEntries(Object.entries(RATES).map(([name, key]) => [name, metrics.reduce((sum, { metrics }) => sum + metrics[key], 0)]))
  if (before) history.points.push(point)
  history.latest = point
  if (history.points.length > KEPT) history.points.shift()
  before = { at, of: now }
}

export function start() {
  if (timer) return
  timer = setTimeout(look, 0)
}

export function stop() {
  clearTimeout(timer)
  timer = null
  before = null
  Object.assign(history, { points: [], nodes: [], latest: null, error: null })
}
