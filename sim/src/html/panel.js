// The panel beside the lanes: the story of each violation, the message that was clicked, the table of checks, the keys.
// Texts of a run are set as text, never as markup.

const panel = document.getElementById('pane')
const tabs = document.getElementById('tabs')
const TABS = [['story', run.violations.length ? 'Story' : 'Run'], ['message', 'Message'], ['checks', 'Checks'], ['help', 'Help']]
let tab = 'story'
let picked = null

function element(name, attributes = {}, ...children) {
  const out = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'class') out.className = value
    // As an attribute it would need a policy that lets styles be inline.
    else if (key === 'style') out.style.cssText = value
    else if (key.startsWith('on')) out.addEventListener(key.slice(2), value)
    else if (value !== null && value !== false) out.setAttribute(key, value)
  }
  out.append(...children.filter((child) => child !== null))
  return out
}

function fillHeader() {
  const badge = document.getElementById('verdict')
  const first = run.violations[0]
  badge.textContent = first ? `${first.check} violated` : 'ok'
  badge.classList.toggle('bad', Boolean(first))
  document.getElementById('why').textContent = run.why || 'A run'
  const facts = [['clients', grouped(run.clients.length)], ['nodes', `${run.nodes} × ${counted(run.shards, 'shard', 'shards')}`], ['simulated', duration(run.simulated)],
    ['events', grouped(run.count)], ['tier', run.driver], ['seed', run.seed, 'mono'], ['trace', run.hash, 'mono']]
  document.getElementById('facts').append(...facts.map(([name, value, look]) =>
    element('div', {}, element('dt', {}, name), element('dd', { class: look ?? '' }, value))))
}

function buildTabs() {
  tabs.append(...TABS.map(([id, label]) => element('button', { type: 'button', role: 'tab', id: `tab-${id}`, 'aria-controls': 'pane', onclick: () => openTab(id) }, label)))
  tabs.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    if (!step) return
    const at = TABS.findIndex(([id]) => id === tab)
    openTab(TABS[(at + step + TABS.length) % TABS.length][0])
    document.getElementById(`tab-${tab}`).focus()
  })
}

function openTab(id) {
  tab = id
  for (const [name] of TABS) {
    const button = document.getElementById(`tab-${name}`)
    button.setAttribute('aria-selected', name === id)
    button.tabIndex = name === id ? 0 : -1
  }
  panel.setAttribute('aria-labelledby', `tab-${id}`)
  panel.replaceChildren(...{ story: storyPane, message: messagePane, checks: checksPane, help: helpPane }[id]())
  panel.scrollTop = 0
}

// ---- story ----

function storyPane() {
  if (!run.violations.length) return runPane()
  const out = run.violations.map((violation, i) => element('article', { class: 'violation', onclick: () => choose(violation) },
    element('h2', {}, element('span', { class: 'tag' }, violation.check), capital(violation.about)),
    element('p', { class: 'lead' }, sentence(violation.message)),
    moments(violation, i),
    element('h3', {}, 'Why this is wrong'),
    promise(violation.promise),
    ...(violation.excluded.length ? [element('h3', {}, 'What does not excuse it'), element('ul', { class: 'excluded' }, ...violation.excluded.map((line) => element('li', {}, line)))] : [])))
  if (run.more) out.push(element('p', { class: 'empty' }, `${counted(run.more, 'more violation was', 'more violations were')} not kept.`))
  return out
}

function moments(violation, index) {
  const numbered = new Map(violation.moments.map(([at, text], i) => [`${at} ${sentence(text)}`, i + 1]))
  return element('ol', { class: 'moments' }, ...violation.happened.map(([at, line]) => {
    const number = numbered.get(`${at} ${line}`)
    const mark = number ? element('span', { class: 'number' }, number) : element('span', { class: 'dot' })
    const go = (event) => { choose(violation); jump(at); event.currentTarget.focus({ preventScroll: true }) }
    return element('li', {}, element('button', { type: 'button', 'data-at': at, 'data-violation': index, onclick: go },
      mark, element('time', {}, clock(at)), element('span', { class: number ? '' : 'minor' }, line)))
  }))
}

function markMoment(at) {
  for (const button of panel.querySelectorAll('.moments button')) button.classList.toggle('active', Number(button.dataset.at) === at)
}

// Statements of the specification are set apart from the sentence.
function promise(text) {
  const parts = capital(text).split(/(\[MQTT-[0-9.]+-[0-9]+\])/)
  return element('blockquote', { class: 'promise' }, ...parts.map((part) => part.startsWith('[MQTT-') ? element('cite', {}, part.slice(1, -1)) : part))
}

function runPane() {
  const { arrows } = model
  let sent = 0, came = 0
  const qos = [0, 0, 0]
  for (let i = 0; i < arrows.count; i++) {
    if (arrows.kind[i] !== DATA) continue
    if (arrows.down[i]) came++
    else { sent++; qos[arrows.qos[i]]++ }
  }
  const looked = run.checks.filter((check) => check[3] > 0).length
  const faults = model.faults
  return [
    element('h2', {}, 'Nothing was violated'),
    element('p', { class: 'lead' }, `${capital(counted(run.clients.length, 'client', 'clients'))} made ${counted(model.conns.size, 'connection', 'connections')} in ${duration(run.simulated)}. ` +
      `${counted(sent, 'message', 'messages')} went in (${grouped(qos[0])} with QoS 0, ${grouped(qos[1])} with QoS 1, ${grouped(qos[2])} with QoS 2), ${counted(came, 'delivery', 'deliveries')} came out. ` +
      `${capital(counted(looked, 'check', 'checks'))} had something to look at.`),
    element('h3', {}, faults.length ? 'Faults' : 'There was no fault'),
    element('ol', { class: 'moments' }, ...faults.slice(0, 100).map((fault) => element('li', {},
      element('button', { type: 'button', 'data-at': fault.from, onclick: () => jump(fault.from) }, element('span', { class: 'dot' }),
        element('time', {}, clock(fault.from)), element('span', {}, `${faultWho(fault)}: ${fault.label}${fault.to < model.end && !fault.instant ? `, for ${duration(fault.to - fault.from)}` : ''}`))))),
  ]
}

const faultWho = (fault) => fault.client !== NONE ? clientName(fault.client) : fault.shard !== NONE ? `${nodeName(fault.node)}, shard ${fault.shard}` : nodeName(fault.node)

// ---- message ----

function messagePane() {
  if (picked === null) return [element('p', { class: 'empty' }, 'Click an arrow to see where its message came from and where it went.')]
  const { arrows, times } = model
  const told = describe(arrows.event[picked])
  const uid = arrows.uid[picked]
  const way = (uid === null ? [picked] : arrows.byUid.get(uid)).slice().sort((a, b) => times[arrows.event[a]] - times[arrows.event[b]])
  const out = [element('div', { class: 'detail' }, kindLine(told), element('h2', {}, told.title), fieldList(told.fields))]
  if (uid !== null) {
    const copies = way.filter((i) => arrows.down[i]).length
    out.push(element('h3', {}, `Its way: ${counted(copies, 'delivery', 'deliveries')}`),
      element('ol', { class: 'moments' }, ...way.slice(0, 300).map((i) => {
        const at = times[arrows.event[i]]
        const e = model.events[arrows.event[i]]
        const who = clientName(arrows.client[i])
        const words = arrows.down[i] ? `${who} gets it with QoS ${e[7] & 3} after ${duration(arrows.to[i] - arrows.from[i])}${e[7] & 4 ? ', DUP' : ''}${e[7] & 8 ? ', RETAIN' : ''}`
          : `${who} publishes it with QoS ${e[7] & 3}${e[7] & 4 ? ', DUP' : ''}${e[7] & 8 ? ', RETAIN' : ''}${arrows.lost[i] ? '; no answer came' : ''}`
        return element('li', {}, element('button', { type: 'button', 'data-at': at, onclick: () => jump(at) }, element('span', { class: 'dot' }), element('time', {}, clock(at)), element('span', {}, words)))
      })))
  }
  return out
}

const kindLine = (told) => element('span', { class: 'kind', style: `--of: var(--${told.colour})` }, told.kind)
const fieldList = (fields) => element('dl', { class: 'fields' }, ...fields.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, String(value))]))

// ---- checks ----

function checksPane() {
  return [element('table', {},
    element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, 'Check'), element('th', { scope: 'col', class: 'number' }, 'Times'), element('th', { scope: 'col' }, 'What it finds'))),
    element('tbody', {}, ...run.checks.map(([name, about, , times, violated]) => element('tr', { class: violated ? 'bad' : times ? '' : 'none' },
      element('td', { class: 'name' }, violated ? `✗ ${name}` : name), element('td', { class: 'number' }, grouped(times)), element('td', {}, capital(about))))))]
}

// ---- help ----

function helpPane() {
  const keys = [['wheel', 'zoom around the pointer'], ['shift + wheel', 'move in time; with many clients the wheel over the names scrolls'], ['drag', 'move'], ['double click', 'zoom in'], ['← →', 'move in time'],
    ['↑ ↓', 'scroll the lanes'], ['+ −', 'zoom'], ['0', 'the whole run'], ['n p', 'next, previous moment of the story'], ['v', 'show the violation'], ['/', 'search'], ['Esc', 'clear']]
  const looks = [
    ['<path d="M2 8h52" stroke="var(--session)" stroke-width="6" stroke-linecap="round"/>', 'a connection of the client'],
    ['<path d="M4 8h50" stroke="var(--session-off)" stroke-width="6" stroke-dasharray="2.5 2.5"/>', 'its session without a connection; a bar at the end if it expired'],
    ['<path d="M2 8h36" stroke="var(--session)" stroke-width="6" stroke-linecap="round"/><path d="m37 4 8 8m0-8-8 8" stroke="var(--fault)" stroke-width="1.8"/>', 'the connection broke; red if the broker ended it'],
    ['<path d="M2 8h58M2 5v6" stroke="var(--subscription)" stroke-width="1.6"/>', 'a subscription, from SUBACK on'],
    ['<path d="M6 2l8 11m-4.500-1.500L14 13l-.5-4.800" stroke="var(--qos1)" stroke-width="1.6"/>', 'a message; the slope is the time under way'],
    ['<path d="M6 2l5 7" stroke="var(--qos1)" stroke-width="1.6" stroke-dasharray="3 2"/>', 'a publish that nothing came of'],
    ['<path d="M4 15V8M8 15V4M12 15V6M16 15v-4M20 15V5M24 15v-6" stroke="var(--qos1)" stroke-width="3"/>', 'messages too many to be drawn one by one: height is their number'],
    ['<path d="M1 1h58v14H1z" fill="var(--fault-wash)"/><path d="M1 1v14" stroke="var(--fault)" stroke-width="1.6"/>', 'a fault'],
    ['<path d="M2 8h46" stroke="var(--bad)" stroke-width="2" stroke-dasharray="6 4"/><path d="m50 4 8 8m0-8-8 8" stroke="var(--bad)" stroke-width="1.8"/>', 'a delivery that is owed and never came'],
  ]
  const picture = (paths) => { const holder = document.createElement('dt'); holder.innerHTML = `<svg viewBox="0 0 64 16" fill="none" aria-hidden="true">${paths}</svg>`; return holder }
  return [
    element('h3', { style: 'margin-top: 0' }, 'What is drawn'), element('dl', { class: 'keys' }, ...looks.flatMap(([paths, text]) => [picture(paths), element('dd', {}, text)])),
    element('h3', {}, 'Keys'), element('dl', { class: 'keys' }, ...keys.flatMap(([key, text]) => [element('dt', {}, key), element('dd', {}, text)])),
  ]
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1)
// The first letter stays as it is: it may be a client's name.
const sentence = (text) => /[.!?]$/.test(text) ? text : `${text}.`
