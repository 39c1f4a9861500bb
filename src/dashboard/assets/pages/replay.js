// Shows a run of the simulator, from the page that `cargo sim replay SCENARIO --html FILE` writes. Only the data is taken from a
// file. What draws it are the scripts of this broker, in a frame, so that no script of a file ever runs.

import { clean, h, show } from '../dom.js'

export const title = 'Replay of a run'

const BYTES_MAX = 256 * 2 ** 20
const FORMAT = 1

const BEFORE = '<script type="application/json" id="run">'
const AFTER = '</' + 'script>'

// The text of one element of the page: its data has no < in it.
function dataOf(text) {
  if (!text.trimStart().startsWith('<')) return text
  const from = text.indexOf(BEFORE)
  const to = text.indexOf(AFTER, from)
  if (from < 0 || to < 0) throw new Error('The file has no run in it; cargo sim replay SCENARIO --html FILE writes one.')
  return text.slice(from + BEFORE.length, to)
}

function check(text) {
  let run
  try {
    run = JSON.parse(text)
  } catch {
    throw new Error('The data of the run is not JSON.')
  }
  if (run?.format !== FORMAT || !Array.isArray(run.events)) throw new Error(`The run is in format ${clean(run?.format ?? '?')}; this broker knows format ${FORMAT}.`)
  return run
}

export function render(place) {
  const told = h('p', { class: 'told', role: 'status' })
  const stage = h('div', { class: 'replay' })
  const file = h('input', { type: 'file', accept: '.html,.json,text/html,application/json', onchange: () => open(file.files[0]) })
  const drop = h('label', {
    class: 'card drop',
    ondragover: (event) => { event.preventDefault(); drop.classList.add('over') },
    ondragleave: () => drop.classList.remove('over'),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove('over'); open(event.dataTransfer.files[0]) },
  }, h('span', {}, 'A file of ', h('code', {}, 'cargo sim replay SCENARIO --html FILE'), '. It stays in this browser.'), file)
  place.append(drop, told, stage)

  async function open(chosen) {
    if (!chosen) return
    try {
      if (chosen.size > BYTES_MAX) throw new Error('The file is larger than 256 MiB.')
      const text = dataOf(await chosen.text())
      const run = check(text)
      told.textContent = `${clean(chosen.name)}: ${clean(run.why ?? 'a run')}`
      draw(text)
    } catch (error) {
      told.textContent = error.message
      show(stage)
    }
  }

  function draw(text) {
    const frame = h('iframe', { src: '/replay/frame.html', title: 'The run' })
    frame.onload = () => {
      const inside = frame.contentDocument
      inside.getElementById('run').textContent = text
      const script = inside.createElement('script')
      script.src = '/replay/page.js'
      inside.body.append(script)
    }
    show(stage, frame)
  }
}
