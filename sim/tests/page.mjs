#!/usr/bin/env node
// What a person does with the page of a run, in Chromium: page.mjs PAGE.html OUT.png
//
// Opens the page from the disk, looks whether its lanes and its violation are there, zooms, searches, clicks a moment, and
// takes a screenshot, and one in dark mode beside it (OUT-dark.png). Exit status 0 and a last line 'N passed' if all is
// well. playwright-core is found by NODE_PATH.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const { chromium } = createRequire(import.meta.url)('playwright-core')
const [file, image] = process.argv.slice(2)
if (!file || !image) {
  console.error('page.mjs PAGE.html OUT.png')
  process.exit(2)
}
const width = Number(process.env.PAGE_WIDTH ?? 1440)
const height = Number(process.env.PAGE_HEIGHT ?? 900)

function program(name) {
  const found = process.env.PATH.split(':').map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file))
  if (!found) throw new Error(`${name} is not on the PATH`)
  return found
}

const troubles = []
let passed = 0

async function check(name, test) {
  await test()
  passed += 1
  console.log(`ok ${name}`)
}

async function open(browser, colorScheme) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' })
  page.on('pageerror', (error) => troubles.push(String(error)))
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) troubles.push(message.text()) })
  page.on('request', (request) => { if (!/^(file|data|blob):/.test(request.url())) troubles.push(`asks for ${request.url()}`) })
  await page.goto(pathToFileURL(path.resolve(file)).href)
  await page.waitForFunction(() => window.newtmq, null, { timeout: 10_000 })
  return page
}

const state = (page) => page.evaluate(() => {
  const { view, drawn } = window.newtmq
  window.newtmq.draw()
  return { ...drawn, from: view.from, to: view.to, lanes: window.newtmq.lanes(), marked: window.newtmq.highlighted() }
})

async function look(page) {
  const run = await page.evaluate(() => {
    const { events, names, checks, ...head } = window.newtmq.run
    return { ...head, events: events.length, nodesShown: window.newtmq.nodes(), faultsShown: window.newtmq.faults() }
  })
  // The page opens with what happens; the key shows all of the run.
  await page.keyboard.press('0')
  const whole = await state(page)
  const violation = run.violations[0]
  await check('every client and node has a lane', () => {
    assert.equal(whole.lanes.length, run.clients.length)
    assert.deepEqual(whole.lanes.map((lane) => lane.name).sort(), run.clients.map((client) => client.name).sort())
    assert.equal(run.nodesShown.length, run.nodes)
    assert.equal(new Set(whole.lanes.map((lane) => lane.y)).size, whole.lanes.length, 'no two lanes in one place')
  })
  await check('the verdict and why stand at the top', async () => {
    assert.equal(await page.textContent('#verdict'), violation ? `${violation.check} violated` : 'ok')
    assert.equal(await page.textContent('#why'), run.why || 'A run')
  })
  await check('the window does not scroll', async () => {
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight))
  })
  if (violation) await lookAtViolation(page, violation)
  await page.keyboard.press('0')
  await check('the wheel zooms around the pointer', async () => {
    const box = await page.locator('#lanes').boundingBox()
    await page.mouse.move(box.x + box.width * .6, box.y + box.height / 2)
    await page.mouse.wheel(0, -400)
    const zoomed = await state(page)
    assert.ok(zoomed.to - zoomed.from < (whole.to - whole.from) * .7)
    assert.ok(zoomed.from > whole.from && zoomed.to < whole.to)
  })
  await check('keys move, zoom and go back', async () => {
    const before = await state(page)
    await page.locator('#lanes').focus()
    await page.keyboard.press('ArrowRight')
    assert.ok((await state(page)).from > before.from)
    await page.keyboard.press('+')
    const nearer = await state(page)
    assert.ok(nearer.to - nearer.from < before.to - before.from)
    await page.keyboard.press('0')
    assert.equal((await state(page)).to, whole.to)
  })
  await check('a drag moves in time', async () => {
    await page.keyboard.press('+')
    const before = await state(page)
    const box = await page.locator('#lanes').boundingBox()
    await page.mouse.move(box.x + box.width * .7, box.y + 60)
    await page.mouse.down()
    await page.mouse.move(box.x + box.width * .5, box.y + 60, { steps: 3 })
    await page.mouse.up()
    assert.ok((await state(page)).from > before.from)
    await page.keyboard.press('0')
  })
  await lookAtFilters(page, run, whole)
  await check('the checks have a table', async () => {
    await page.click('#tab-checks')
    assert.ok(await page.locator('#pane tbody tr').count() >= 20)
    await page.click('#tab-help')
    await page.click('#tab-story')
  })
}

async function lookAtViolation(page, violation) {
  await check('the violation is told and marked', async () => {
    assert.ok((await page.textContent('#pane')).includes(violation.message.slice(1, 40)))
    assert.equal(await page.locator('#pane .violation').first().locator('.number').count(), violation.moments.length)
    const { marked, missing } = await state(page)
    if (violation.journey.length) assert.ok(marked.length > 0)
    assert.ok(marked.every((event) => violation.journey.includes(event)))
    if (violation.check === 'S1') assert.equal(missing, 1, 'the delivery that never came')
  })
  await check('a click on a moment goes there', async () => {
    const moments = page.locator('#pane .moments button')
    const at = Number(await moments.nth(Math.min(2, await moments.count() - 1)).getAttribute('data-at'))
    await moments.nth(Math.min(2, await moments.count() - 1)).click()
    const { from, to } = await state(page)
    assert.ok(from <= at && at <= to && to - from < 1e9)
    assert.equal(await page.locator('#pane .moments button.active').count() >= 1, true)
  })
  await check('a message under the pointer tells about itself', async () => {
    const { marked, dense } = await state(page)
    const spot = await page.evaluate((events) => events.map((event) => window.newtmq.arrowAt(event)).find(Boolean), marked)
    if (!spot || dense) return
    const box = await page.locator('#lanes').boundingBox()
    await page.mouse.move(box.x + spot.x, box.y + spot.y)
    assert.ok(await page.locator('#card').isVisible())
    await page.mouse.click(box.x + spot.x, box.y + spot.y)
    assert.equal(await page.getAttribute('#tab-message', 'aria-selected'), 'true')
  })
  await check('v shows the violation as a whole', async () => {
    await page.locator('#lanes').focus()
    await page.keyboard.press('v')
    assert.equal(await page.getAttribute('#tab-story', 'aria-selected'), 'true')
    assert.ok((await state(page)).highlighted >= 0)
  })
}

async function lookAtFilters(page, run, whole) {
  await check('the search leaves what it finds', async () => {
    await page.keyboard.press('/')
    await page.keyboard.type(run.clients[0].name)
    const found = await state(page)
    assert.ok(found.lanes.some((lane) => lane.name === run.clients[0].name))
    assert.ok(found.arrows <= whole.arrows)
    await page.keyboard.press('Escape')
    assert.equal((await state(page)).lanes.length, whole.lanes.length)
  })
  await check('chips hide and show', async () => {
    const before = (await state(page)).arrows
    await page.click('[data-chip=acks]')
    assert.ok((await state(page)).arrows >= before)
    await page.click('[data-chip=acks]')
    assert.equal((await state(page)).arrows, before)
  })
  await check('a frame is quick', async () => {
    const millis = await page.evaluate(() => {
      const start = performance.now()
      for (let i = 0; i < 20; i++) window.newtmq.draw()
      return (performance.now() - start) / 20
    })
    console.log(`  ${millis.toFixed(1)} ms a frame, ${run.events} events`)
    assert.ok(millis < 60, `${millis} ms`)
  })
}

async function main() {
  const browser = await chromium.launch({
    executablePath: program('chromium'),
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  })
  try {
    const page = await open(browser, 'light')
    await page.screenshot({ path: image })
    await look(page)
    const dark = await open(browser, 'dark')
    await dark.screenshot({ path: image.replace(/(\.png)?$/, '-dark.png') })
  } finally {
    await browser.close()
  }
  assert.deepEqual(troubles, [], 'no error and no request')
  console.log(`${passed} passed`)
}

main().catch((error) => {
  troubles.forEach((trouble) => console.error(trouble))
  console.error(error)
  process.exit(1)
})
