// Elements, and how things are written for people. Text is always text: nothing here takes markup.

const SVG = 'http://www.w3.org/2000/svg'

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'value' || name === 'checked' || name === 'selected') element[name] = value
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false))
  return element
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children)
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children)

export function show(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false))
}

// ---- words ----

const NUMBERS = new Intl.NumberFormat('en')
export const count = (n) => n === undefined || n === null ? '–' : NUMBERS.format(n)

export function short(n) {
  if (n < 10) return n === 0 || Number.isInteger(n) ? String(n) : n.toFixed(1)
  if (n < 10_000) return NUMBERS.format(Math.round(n))
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) if (n >= size) return `${(n / size).toFixed(n < size * 100 ? 1 : 0)} ${unit}`
  return String(n)
}

export const compact = (n) => n < 1000 ? short(n) : short(n).includes(' ') ? short(n) : `${(n / 1000).toFixed(1)} k`

export function bytes(n) {
  for (const [unit, size] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(n < size * 100 && n % size ? 1 : 0)} ${unit}`
  }
  return `${Math.round(n)} B`
}

export function span(seconds) {
  if (seconds === 0xffff_ffff) return 'for ever'
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`
  const parts = [['d', 86400], ['h', 3600], ['m', 60], ['s', 1]].reduce(([left, out], [unit, size]) => {
    const whole = Math.floor(left / size)
    return [left - whole * size, whole ? [...out, `${whole} ${unit}`] : out]
  }, [seconds, []])[1]
  return parts.slice(0, 2).join(' ') || '0 s'
}

export const since = (unix) => span(Math.max(0, Math.floor(Date.now() / 1000 - unix)))

// Control characters of a name would be invisible, or worse.
export const clean = (text) => String(text ?? '').replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd')

export const badge = (kind, text) => h('span', { class: `badge ${kind}` }, text)
export const yes = (flag) => flag ? 'yes' : 'no'
