#!/usr/bin/env node
// What people do with the dashboard, in Chromium: dashboard.mjs NEWTMQ RUN.html [IMAGES]
//
// Starts three nodes of a cluster with the program NEWTMQ, logs in, chooses a password, looks at every page in both themes and on
// a phone, publishes with the test client, kicks a client, adds a user, bans a client, traces a topic, kills a node and starts it
// again, and opens the run of the simulator in RUN.html. Screenshots go to the folder IMAGES. Exit status 0 and a last line
// 'N passed' if all is well. mqtt and playwright-core are found by NODE_PATH.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { PATIENCE, client, device, folder, form, nodes, start, until } from './dashboard_nodes.mjs'

const require = createRequire(import.meta.url)
const { chromium } = require('playwright-core')

const [newtmq, run, images] = process.argv.slice(2)
if (!newtmq || !run) {
  console.error('dashboard.mjs NEWTMQ RUN.html [IMAGES]')
  process.exit(2)
}
const PASSWORD = 'correct horse battery'
const troubles = []
let passed = 0
// What the browser says of an answer that is not 200, where one is wanted.
let expected = 0

async function check(name, test) {
  await test()
  passed += 1
  console.log(`ok ${name}`)
}

// ---- the browser ----

function program(name) {
  const found = process.env.PATH.split(':').map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file))
  if (!found) throw new Error(`${name} is not on the PATH`)
  return found
}

async function tab(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 760 }, reducedMotion: 'reduce', ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(PATIENCE)
  page.on('pageerror', (error) => troubles.push(String(error)))
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return
    if (expected > 0 && /status of 4/.test(message.text())) expected -= 1
    else troubles.push(message.text())
  })
  page.on('request', (request) => {
    const url = request.url()
    if (!/^(data|blob):/.test(url) && new URL(url).origin !== new URL(nodes[1].dashboard).origin) troubles.push(`asks for ${url}`)
  })
  return page
}

const title = (page, text) => page.waitForFunction((text) => document.querySelector('h1')?.textContent === text, text)

async function go(page, id, name) {
  await page.evaluate((id) => { location.hash = `#/${id}` }, id)
  await title(page, name)
}

async function logIn(page, user, password) {
  await page.fill('[name=username]', user)
  await page.fill('[name=password]', password)
  await page.click('button[type=submit]')
}

async function image(page, name) {
  if (!images) return
  await page.evaluate(() => window.scrollTo(0, 0))
  fs.mkdirSync(images, { recursive: true })
  await page.screenshot({ path: path.join(images, `${name}.png`) })
}

const PAGES = {
  overview: 'Overview', cluster: 'Cluster', alarms: 'Alarms', listeners: 'Listeners', connections: 'Connections', sessions: 'Sessions', subscriptions: 'Subscriptions',
  routes: 'Topics', retained: 'Retained', devices: 'MQTT-SN', 'client/press-1': 'Client', access: 'Users and rules', accounts: 'Accounts', banned: 'Banned', apps: 'Applications', audit: 'Audit log',
  websocket: 'Test client', traces: 'Traces', 'traces/topic%2Fplant%2F%2B%2Fpressure': 'Traces', replay: 'Replay of a run', settings: 'Settings',
}

async function firstLogin(page) {
  await check('whoever has not logged in sees nothing', async () => {
    expected += 1
    await page.goto(nodes[1].dashboard)
    await title(page, 'Log in')
    await image(page, 'login-light')
    for (const path of ['/api/v3/brokers', '/api/v3/connections', '/api/v3/apps', '/session']) {
      assert.equal((await page.request.get(nodes[1].dashboard + path)).status(), 401, path)
    }
  })
  await check('a wrong password is refused', async () => {
    expected += 1
    await logIn(page, 'admin', 'private')
    await page.getByText('wrong user name or password').waitFor()
  })
  await check('the first password has to be changed, and nothing works before', async () => {
    await logIn(page, 'admin', 'public')
    await title(page, 'Choose a password')
    assert.equal((await page.request.get(`${nodes[1].dashboard}/api/v3/brokers`)).status(), 403)
    await page.fill('[name=new]', PASSWORD)
    await page.fill('[name=again]', 'another one')
    await page.click('button[type=submit]')
    await page.getByText('not the same').waitFor()
    await page.fill('[name=again]', PASSWORD)
    await page.click('button[type=submit]')
    await title(page, 'Overview')
    assert.equal((await page.request.get(`${nodes[1].dashboard}/api/v3/brokers`)).status(), 200)
  })
  await check('scripts do not see the cookie, and a reload keeps the login', async () => {
    assert.equal(await page.evaluate(() => document.cookie), '')
    await page.reload()
    await title(page, 'Overview')
  })
}

async function useTestClient(page, watcher) {
  await check('the test client publishes, and what it publishes arrives', async () => {
    await go(page, 'websocket', 'Test client')
    await page.getByRole('button', { name: 'Connect' }).click()
    await page.locator('#client-state').getByText('connected', { exact: true }).waitFor()
    const got = []
    watcher.on('message', (topic, payload, packet) => got.push([topic, String(payload), packet.qos]))
    await watcher.subscribeAsync('test/#', { qos: 2 })
    await page.getByRole('button', { name: 'Subscribe', exact: true }).click()
    await page.locator('.chips li').waitFor()
    for (const qos of ['0', '1', '2']) {
      await page.fill('textarea', `grüße ${qos}`)
      await page.locator('form').filter({ has: page.locator('textarea') }).locator('select').selectOption(qos)
      await page.getByRole('button', { name: 'Publish', exact: true }).click()
      await page.locator('.messages li.in').getByText(`grüße ${qos}`, { exact: true }).waitFor()
    }
    await until('the messages at another node', () => got.length === 3)
    assert.deepEqual(got, [0, 1, 2].map((qos) => ['test/hello', `grüße ${qos}`, qos]))
  })
  await check('bytes that are no text and a filter that is none are shown as what they are', async () => {
    await watcher.publishAsync('test/bytes', Buffer.from([0, 255, 16]), { qos: 2 })
    await page.locator('.messages').getByText('00 ff 10').waitFor()
    await page.fill('[name=filter]', 'a/#/b')
    await page.getByRole('button', { name: 'Subscribe', exact: true }).click()
    await page.locator('main .error').filter({ hasText: /./ }).waitFor()
    await page.getByRole('button', { name: 'Disconnect' }).waitFor()
  })
}

async function kick(page) {
  await check('a client is found, shown and kicked', async () => {
    const victim = await client(2, 'weaving loom/7')
    const closed = new Promise((resolve) => victim.once('close', resolve))
    await go(page, 'connections', 'Connections')
    await page.fill('main [type=search]', 'loom')
    await page.getByRole('button', { name: 'Search' }).click()
    await page.getByRole('link', { name: 'weaving loom/7' }).click()
    await title(page, 'Client')
    await page.getByText('n2@plant').first().waitFor()
    await page.getByRole('button', { name: 'Kick' }).first().click()
    await page.getByRole('dialog').getByRole('button', { name: 'Kick' }).click()
    await closed
    await page.getByText('away').first().waitFor()
  })
}

const button = (page, name) => page.getByRole('button', { name, exact: true })
const confirm = (page, name) => page.getByRole('dialog').getByRole('button', { name }).click()

async function accounts(page) {
  const may = (options) => client(2, 'lathe', { ...options }).then((mqtt) => mqtt, () => null)
  await check('a user that a page adds logs in at another node, with another password then, and no more when it is removed', async () => {
    await go(page, 'accounts', 'Accounts')
    await page.fill('[name=name]', 'turner & co')
    await page.fill('[name=password]', 'a password of a turner')
    await button(page, 'Add').click()
    await page.getByText('turner & co may log in.').waitFor()
    const user = await until('the user at another node', () => may({ username: 'turner & co', password: 'a password of a turner' }))
    const gone = new Promise((resolve) => user.once('close', resolve))
    expected += 1
    await page.fill('[name=name]', 'turner & co')
    await page.fill('[name=password]', 'once more')
    await button(page, 'Add').click()
    await page.getByText('there is such a username already').waitFor()
    await button(page, 'Change the password of turner & co').click()
    await page.getByRole('dialog').locator('[name=password]').fill('a password, another')
    await confirm(page, 'Change')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    await until('the other password at another node', () => may({ username: 'turner & co', password: 'a password, another', clientId: 'lathe-2' }))
    assert.equal(await may({ username: 'turner & co', password: 'a password of a turner', clientId: 'lathe-3' }), null)
    await button(page, 'Remove turner & co').click()
    await confirm(page, 'Remove')
    await gone
    await page.getByText('There is none.').waitFor()
  })
  await check('a client id has a password, too', async () => {
    await page.getByRole('link', { name: 'Client ids' }).click()
    await page.getByText('Client identifiers that need a password').waitFor()
    await page.fill('[name=name]', 'meter-17')
    await page.fill('[name=password]', 'a password of a meter')
    await button(page, 'Add').click()
    await page.getByRole('cell', { name: 'meter-17', exact: true }).waitFor()
    await until('that it is asked for at another node', async () => await may({ clientId: 'meter-17' }) === null)
    assert.ok(await may({ clientId: 'meter-17', username: 'meter-17', password: 'a password of a meter' }))
    await go(page, 'accounts', 'Accounts')
    await page.fill('[name=name]', 'operator')
    await page.fill('[name=password]', 'a password of an operator')
    await button(page, 'Add').click()
    await page.getByRole('cell', { name: 'operator', exact: true }).waitFor()
  })
}

async function bans(page) {
  await check('a client that a page bans goes, and comes back when the ban is ended', async () => {
    const loud = await client(3, 'loud/1 é')
    const gone = new Promise((resolve) => loud.once('close', resolve))
    await go(page, `client/${encodeURIComponent('loud/1 é')}`, 'Client')
    await page.getByRole('main').getByRole('link', { name: 'Ban' }).click()
    await title(page, 'Banned')
    assert.equal(await page.inputValue('[name=who]'), 'loud/1 é')
    await page.fill('[name=reason]', 'sends nonsense')
    await button(page, 'Ban').click()
    await gone
    await page.getByRole('cell', { name: 'sends nonsense' }).waitFor()
    await assert.rejects(client(3, 'loud/1 é'))
    await button(page, 'End the ban of loud/1 é').click()
    await confirm(page, 'End it')
    await page.getByText('Nobody is banned.').waitFor()
    await until('that it may connect', () => client(3, 'loud/1 é').then(() => true, () => false))
  })
  await check('a user, an address and a network are banned; what is none is refused', async () => {
    const ban = async (kind, who, lasts) => {
      await page.locator('[name=as]').selectOption(kind)
      await page.locator('[name=time]').selectOption(lasts)
      if (lasts === 'until') await page.fill('[name=until]', '2039-12-31T12:00')
      await page.fill('[name=who]', who)
      await button(page, 'Ban').click()
    }
    for (const [kind, who, lasts] of [['username', 'eve', ''], ['ip_address', '192.0.2.7', 'until'], ['ip_address', '2001:db8::/32', '604800']]) {
      await ban(kind, who, lasts)
      await page.getByRole('cell', { name: who, exact: true }).waitFor()
    }
    await page.getByRole('cell', { name: /31 Dec 2039/ }).waitFor()
    expected += 1
    await ban('ip_address', 'the press', '600')
    await page.locator('main .error').filter({ hasText: /./ }).waitFor()
  })
}

async function traces(page) {
  await check('a trace that a page begins shows what happens at every node, and is downloaded', async () => {
    await go(page, 'traces', 'Traces')
    await page.locator('[name=kind]').selectOption('topic')
    await page.fill('[name=what]', 'milling/+')
    await button(page, 'Start').click()
    await button(page, 'Pause').waitFor()
    const mill = await until('a record', async () => {
      const mill = await client(2, 'mill-1')
      await mill.publishAsync('milling/1', 'x', { qos: 1 })
      return await page.getByRole('cell', { name: 'message.received' }).count() ? mill : mill.endAsync()
    })
    await page.getByRole('row').filter({ hasText: 'milling/1' }).filter({ hasText: 'mill-1' }).filter({ hasText: 'n2@plant' }).first().waitFor()
    const coming = page.waitForEvent('download')
    await button(page, 'Download').click()
    const lines = fs.readFileSync(await (await coming).path(), 'utf8').trim().split('\n').map((line) => JSON.parse(line))
    assert.ok(lines.some(({ event, client_id, topic }) => event === 'message.received' && client_id === 'mill-1' && topic === 'milling/1'))
    await page.fill('main [type=search]', 'no such words')
    await page.getByText('Nothing has happened yet.').waitFor()
    await page.fill('main [type=search]', '')
    await button(page, 'Pause').click()
    const tally = await page.locator('.foot .told').textContent()
    await mill.publishAsync('milling/2', 'x', { qos: 1 })
    await button(page, 'Go on').click()
    await page.getByRole('row').filter({ hasText: 'milling/2' }).first().waitFor()
    assert.notEqual(await page.locator('.foot .told').textContent(), tally)
    await button(page, 'Stop').click()
    await page.getByText('The trace has ended').waitFor()
    await go(page, 'traces', 'Traces')
    await page.getByText('Nothing is traced.').waitFor()
  })
  await check('a client is traced from its page', async () => {
    await go(page, 'client/press-1', 'Client')
    await page.getByRole('main').getByRole('link', { name: 'Trace' }).click()
    await page.getByText('It is not traced.').waitFor()
    await button(page, 'Start').click()
    await page.getByRole('row').filter({ hasText: 'press-1' }).filter({ hasText: 'message.received' }).first().waitFor()
    await button(page, 'Stop').click()
    await page.getByText('The trace has ended').waitFor()
    await go(page, 'traces', 'Traces')
  })
  await check('what is not a filter is not traced', async () => {
    expected += 1
    await page.locator('[name=kind]').selectOption('topic')
    await page.fill('[name=what]', 'a/#/b')
    await button(page, 'Start').click()
    await page.locator('main .error').filter({ hasText: /./ }).waitFor()
    await page.fill('[name=what]', 'plant/+/pressure')
    await button(page, 'Start').click()
    await button(page, 'Pause').waitFor()
  })
}

async function audit(page) {
  await check('the audit log says who has done what, and no password', async () => {
    await go(page, 'audit', 'Audit log')
    for (const action of ['banned add', 'users update', 'clientid add', 'trace stop']) await page.getByRole('cell', { name: action, exact: true }).first().waitFor()
    assert.doesNotMatch(await page.locator('main').textContent(), /a password/)
    await page.fill('main [type=search]', 'clients kick')
    await button(page, 'Search').click()
    await page.getByText('1 found').waitFor()
    await page.getByRole('cell', { name: 'weaving loom/7' }).waitFor()
  })
}

async function killNode(page) {
  await check('a node goes, which is an alarm, and comes back', async () => {
    await go(page, 'cluster', 'Cluster')
    const whole = () => page.waitForFunction(() => document.querySelectorAll('.cluster .link.up').length === 3)
    await whole()
    nodes[3].child.kill('SIGKILL')
    await page.locator('.cluster .node.down').waitFor()
    await page.locator('.findings li').first().waitFor()
    await image(page, 'cluster-down-light')
    await go(page, 'alarms', 'Alarms')
    await page.getByText('node n3@plant is not reached').first().waitFor()
    await start(3)
    await go(page, 'cluster', 'Cluster')
    await whole()
    await page.getByText(/n3@plant was back at/).waitFor()
    await page.getByText('all is well', { exact: true }).waitFor()
  })
}

async function openRun(page) {
  await check('a run of the simulator is drawn, and no script of its file runs', async () => {
    await go(page, 'replay', 'Replay of a run')
    const evil = path.join(folder, 'evil.html')
    fs.writeFileSync(evil, fs.readFileSync(run, 'utf8').replace('<body>', '<body><script>parent.evil = 1</script><img src=x onerror="parent.evil = 1">'))
    for (const file of [run, evil]) {
      await page.setInputFiles('main [type=file]', file)
      const frame = page.frameLocator('iframe')
      await frame.locator('#verdict').filter({ hasText: /./ }).waitFor()
      assert.ok(await frame.locator('#facts div').count() > 2)
    }
    assert.equal(await page.evaluate(() => window.evil), undefined)
    const not = path.join(folder, 'not.json')
    fs.writeFileSync(not, '{"format":99}')
    await page.setInputFiles('main [type=file]', not)
    await page.getByText('this broker knows format 1').waitFor()
    await page.setInputFiles('main [type=file]', run)
    await page.frameLocator('iframe').locator('#verdict').filter({ hasText: /./ }).waitFor()
  })
}

async function lookAtAll(page, theme, size) {
  await page.emulateMedia({ colorScheme: theme })
  for (const [id, name] of Object.entries(PAGES)) {
    await go(page, id, name)
    await settled(page, id)
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${id} is wider than the ${size} window`)
    const errors = await page.locator('main .error').allTextContents()
    assert.deepEqual(errors.filter(Boolean), [], `${id}`)
    const short = id.startsWith('traces/') ? 'trace' : id.split('/')[0]
    if (size !== 'phone') await image(page, `${short}-${theme}`)
    else if (theme === 'light' && ['overview', 'connections', 'banned', 'trace'].includes(short)) await image(page, `${short}-phone`)
  }
}

// What a page asks for has come.
async function settled(page, id) {
  if (id === 'overview' || id === 'cluster') {
    await page.locator('.cluster .node').first().waitFor()
    await page.getByText('all is well').first().waitFor()
  } else if (id === 'replay') {
    await page.setInputFiles('main [type=file]', run)
    await page.frameLocator('iframe').locator('#verdict').filter({ hasText: /./ }).waitFor()
  } else if (id.startsWith('traces/')) {
    await page.getByRole('cell', { name: 'message.received' }).first().waitFor()
  } else if (id === 'devices') {
    await page.getByText('asleep').first().waitFor()
  } else if (id === 'websocket') {
    await page.getByRole('button', { name: 'Connect' }).click()
    await page.locator('#client-state').getByText('connected', { exact: true }).waitFor()
    await page.getByRole('button', { name: 'Subscribe', exact: true }).click()
    await page.locator('.chips li').waitFor()
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await page.locator('.messages li.in').first().waitFor()
  } else {
    await page.locator('main td, main dl, main pre').first().waitFor()
  }
}

async function keyboard(page) {
  await check('the keyboard is enough', async () => {
    await go(page, 'overview', 'Overview')
    await page.reload()
    await title(page, 'Overview')
    await page.keyboard.press('Tab')
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the page')
    await page.keyboard.press('Enter')
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main')
    const link = page.getByRole('link', { name: 'Sessions' }).first()
    await link.focus()
    await page.keyboard.press('Enter')
    await title(page, 'Sessions')
    await go(page, 'banned', 'Banned')
    await page.locator('[name=who]').focus()
    await page.keyboard.type('by keyboard')
    await page.keyboard.press('Enter')
    await button(page, 'End the ban of by keyboard').focus()
    await page.keyboard.press('Enter')
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await button(page, 'End the ban of by keyboard').waitFor({ state: 'detached' })
  })
  await check('everything that can be used has a name', async () => {
    for (const [id, name] of Object.entries(PAGES)) {
      await go(page, id, name)
      await settled(page, id)
      const nameless = await page.evaluate(() => [...document.querySelectorAll('button, a, input, select, textarea, [role=img], iframe')]
        .filter((of) => of.checkVisibility() && !(of.ariaLabel || of.title || of.textContent.trim() || of.labels?.length || of.querySelector('img[alt]')))
        .map((of) => of.outerHTML.slice(0, 80)))
      assert.deepEqual(nameless, [], id)
    }
  })
  await check('the theme is a choice that stays', async () => {
    await page.emulateMedia({ colorScheme: 'light' })
    const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    const light = await colour()
    await page.getByRole('combobox', { name: 'Theme' }).selectOption('dark')
    assert.notEqual(await colour(), light)
    await page.reload()
    await title(page, 'Settings')
    assert.notEqual(await colour(), light)
    await page.getByRole('combobox', { name: 'Theme' }).selectOption('auto')
    assert.equal(await colour(), light)
  })
}

async function logOut(page) {
  await check('who logs out is out', async () => {
    expected += 1
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByText('You have logged out.').waitFor()
    assert.equal((await page.request.get(`${nodes[1].dashboard}/api/v3/brokers`)).status(), 401)
    expected += 1
    await logIn(page, 'admin', 'public')
    await page.getByText('wrong user name or password').waitFor()
    await logIn(page, 'admin', PASSWORD)
    await title(page, 'Settings')
  })
}

// Something to see: presses that publish, a hall that listens, a meter that is away, devices of MQTT-SN.
async function traffic() {
  const hall = await client(1, 'hall-display')
  await hall.subscribeAsync(['plant/+/temperature', 'plant/+/pressure'], { qos: 1 })
  const log = await client(2, 'archive', { clean: false, properties: { sessionExpiryInterval: 86400 } })
  await log.subscribeAsync('plant/#', { qos: 1 })
  const away = await client(2, 'meter-12', { clean: false, username: 'meter', password: 'a password', properties: { sessionExpiryInterval: 3600 } })
  await away.subscribeAsync('plant/+/pressure', { qos: 1 })
  await away.endAsync()
  const presses = await Promise.all([1, 2, 3, 4, 5].map((n) => client(1 + n % 2, `press-${n}`, { username: 'sensor', password: 'a password' })))
  let round = 0
  const timer = setInterval(() => {
    round += 1
    const busy = 4 + Math.round(3 * Math.sin(round / 40))
    presses.forEach((press, n) => {
      for (let i = 0; i < busy; i++) press.publish(`plant/press-${n + 1}/temperature`, JSON.stringify({ celsius: 180 + (round + n) % 40 }), { qos: i % 2, retain: i === 0 }, () => {})
      if (round % 5 === 0) press.publish(`plant/press-${n + 1}/pressure`, JSON.stringify({ bar: 92 }), { qos: 1, retain: true }, () => {})
    })
  }, 200)
  await presses[0].subscribeAsync(['plant/press-1/set', 'plant/all/stop'], { qos: 1 })
  for (const [id, sleeps] of [['valve-3', 0], ['thermometer-8', 900], ['thermometer-9', 3600]]) await device(1, id, sleeps)
  return () => clearInterval(timer)
}

async function main() {
  await form()
  const quiet = await traffic()
  const browser = await chromium.launch({
    executablePath: program('chromium'),
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  })
  try {
    const page = await tab(browser)
    await firstLogin(page)
    await useTestClient(page, await client(2, 'watcher'))
    await kick(page)
    await accounts(page)
    await bans(page)
    await traces(page)
    await audit(page)
    await killNode(page)
    await openRun(page)
    // So that charts have something to show.
    if (images) await new Promise((resolve) => setTimeout(resolve, 45_000))
    await check('every page in both themes', async () => {
      for (const theme of ['light', 'dark']) await lookAtAll(page, theme, 'desktop')
    })
    await check('every page on a phone', async () => {
      await page.setViewportSize({ width: 360, height: 740 })
      for (const theme of ['light', 'dark']) await lookAtAll(page, theme, 'phone')
      await page.getByRole('button', { name: 'Menu' }).click()
      await page.getByRole('link', { name: 'Topics' }).click()
      await title(page, 'Topics')
      await page.setViewportSize({ width: 1180, height: 760 })
    })
    await keyboard(page)
    await logOut(page)
    quiet()
  } catch (error) {
    await browser.contexts()[0]?.pages()[0]?.screenshot({ path: path.join(os.tmpdir(), 'dashboard-failure.png') })
    console.error(nodes.map((node) => node?.log.slice(-12).join('')).join('\n---\n'))
    throw error
  } finally {
    await browser.close()
  }
  assert.deepEqual(troubles, [], 'no error, no warning and no request to anybody else')
  for (const { log } of nodes.filter(Boolean)) assert.doesNotMatch(log.join(''), /ERROR|panicked|correct horse|a password/)
  console.log(`${passed} passed`)
}

const end = (code) => {
  for (const node of nodes.filter(Boolean)) node.child.kill('SIGKILL')
  fs.rmSync(folder, { recursive: true, force: true })
  process.exit(code)
}

main().then(() => end(0), (error) => {
  troubles.forEach((trouble) => console.error(trouble))
  console.error(error)
  end(1)
})
