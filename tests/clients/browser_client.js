#!/usr/bin/env node
// What a page with MQTT.js does in Chromium, against a running broker: browser_client.js URL CA CERTIFICATE
//
// URL is ws://HOST:PORT or wss:. A browser has no authorities but its own, so it is told the key of the broker's
// CERTIFICATE instead of the CA; any other is refused. Exit status 0 and a last line 'N passed' if all is well.
'use strict'

const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')
const { chromium } = require('playwright-core')

const [url, , certificate] = process.argv.slice(2)
const bundle = path.join(path.dirname(require.resolve('mqtt/package.json')), 'dist/mqtt.min.js')

function keyHash() {
  const { publicKey } = new crypto.X509Certificate(fs.readFileSync(certificate))
  return crypto.createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64')
}

function program(name) {
  const found = process.env.PATH.split(':').map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file))
  if (!found) throw new Error(`${name} is not on the PATH`)
  return found
}

async function main() {
  const browser = await chromium.launch({
    executablePath: program('chromium'),
    // Nothing that reaches for the network by itself; as root there is no sandbox.
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', `--ignore-certificate-errors-spki-list=${keyHash()}`,
    ],
  })
  try {
    const page = await browser.newPage()
    page.on('pageerror', (error) => console.error(error))
    await page.exposeFunction('report', (line) => console.log(line))
    await page.addScriptTag({ path: bundle })
    await page.addScriptTag({ path: path.join(__dirname, 'mqttjs_scenarios.js') })
    await page.evaluate((url) => globalThis.mqttjsScenarios(globalThis.mqtt, url, {}, globalThis.report), `${url}/mqtt`)
  } finally {
    await browser.close()
  }
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
