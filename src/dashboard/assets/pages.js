// Every page, in the order of the menu. A page is a module with `title` and `render(place, argument)`, which may return what is
// to be done when it is left; another page is another line here and in src/dashboard/assets.rs.

import * as access from './pages/access.js'
import * as accounts from './pages/accounts.js'
import * as alarms from './pages/alarms.js'
import * as apps from './pages/apps.js'
import * as banned from './pages/banned.js'
import * as client from './pages/client.js'
import * as cluster from './pages/cluster.js'
import * as listeners from './pages/listeners.js'
import { audit, connections, devices, retained, routes, sessions, subscriptions } from './pages/lists.js'
import * as overview from './pages/overview.js'
import * as replay from './pages/replay.js'
import * as settings from './pages/settings.js'
import * as traces from './pages/traces.js'
import * as websocket from './pages/websocket.js'

export const GROUPS = [
  ['Broker', { overview, cluster, alarms, listeners }],
  ['Clients', { connections, sessions, subscriptions, routes, retained, devices }],
  ['Access', { access, accounts, banned, apps, audit }],
  ['Tools', { websocket, traces, replay, settings }],
]

// Pages that the menu does not have.
export const OTHERS = { client }

export const PAGES = Object.assign({}, OTHERS, ...GROUPS.map(([, pages]) => pages))
