// Small charts in SVG: lines over the last minutes, with the highest value at the top. Colours are those of the style sheet.

import { h, s } from './dom.js'

const [WIDTH, HEIGHT, PAD] = [320, 84, 4]

// A round number that is somewhat above; of bytes it is one of their units.
function roundUp(most, isBytes) {
  if (!(most > 0)) return 1
  const unit = isBytes ? 1024 ** Math.floor(Math.log2(most * 1.05) / 10) : 1
  const of = most * 1.05 / unit
  const size = 10 ** Math.floor(Math.log10(of))
  return [1, 2, 5, 10].map((n) => n * size).find((n) => n >= of) * unit
}

const LONGEST = 300_000
const SHORTEST = 60_000

export function chart({ title, lines, words, isBytes }) {
  const picture = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: 'chart' })
  const most = h('span', { class: 'most' })
  const from = h('span')
  const values = lines.map((line) => h('span', { class: 'value' }, line.label ? h('i', { class: `key ${line.kind}` }) : null, h('b', {}, '–'), ' ', line.label ?? ''))
  const element = h('figure', { class: 'card figure' },
    h('figcaption', {}, h('span', { class: 'name' }, title), h('span', { class: 'values' }, values)),
    h('div', { class: 'plot' }, most, picture),
    h('div', { class: 'ticks', 'aria-hidden': 'true' }, from, h('span', {}, 'now')))

  function draw(points) {
    const now = points.at(-1)?.at ?? Date.now()
    // It is as long as what there is to see.
    const span = Math.min(LONGEST, Math.max(SHORTEST, now - (points[0]?.at ?? now)))
    from.textContent = span < 120_000 ? `${Math.round(span / 1000)} s ago` : `${Math.round(span / 60_000)} min ago`
    const highest = Math.max(0, ...points.flatMap((point) => lines.map((line) => point[line.key] ?? 0)))
    const top = roundUp(highest, isBytes)
    const x = (at) => WIDTH - (now - at) / span * WIDTH
    const y = (value) => HEIGHT - PAD - value / top * (HEIGHT - 2 * PAD)
    const grid = [.5, 1].map((share) => s('line', { class: 'grid', x1: 0, x2: WIDTH, y1: y(top * share), y2: y(top * share) }))
    const drawn = points.length < 2 ? [] : lines.flatMap((line) => {
      const path = points.map((point) => `${x(point.at).toFixed(1)} ${y(point[line.key] ?? 0).toFixed(1)}`).join('L')
      const area = `M${x(points[0].at).toFixed(1)} ${HEIGHT}L${path}L${WIDTH} ${HEIGHT}Z`
      return [s('path', { class: `area ${line.kind}`, d: area }), s('path', { class: `line ${line.kind}`, d: `M${path}` })]
    })
    picture.replaceChildren(...grid, s('line', { class: 'base', x1: 0, x2: WIDTH, y1: HEIGHT - .5, y2: HEIGHT - .5 }), ...drawn)
    most.textContent = words(top)
    const told = lines.map((line, at) => {
      const value = points.at(-1)?.[line.key]
      const text = value === undefined ? '–' : words(value)
      values[at].querySelector('b').textContent = text
      return `${line.label ?? ''} ${text}`
    })
    picture.setAttribute('aria-label', `${title}: ${told.join(', ')}; at most ${words(highest)} since ${from.textContent}`)
  }
  return { element, draw }
}
