// Asks the broker. What it refuses is an Error with its words; if nobody is logged in any more, the pages are told so.

export const session = { current: null }

async function ask(method, path, body) {
  const request = { method, credentials: 'same-origin', cache: 'no-store', headers: {} }
  if (method !== 'GET') request.headers['X-NewtMQ-Dashboard'] = '1'
  if (body !== undefined) {
    request.headers['Content-Type'] = 'application/json'
    request.body = JSON.stringify(body)
  }
  let response
  try {
    response = await fetch(path, request)
  } catch {
    throw Object.assign(new Error('The broker does not answer.'), { lost: true })
  }
  const told = await response.json().catch(() => ({ message: `an answer with status ${response.status}` }))
  if (response.ok && !(told.code > 0)) return told
  if (response.status === 401 && session.current) {
    session.current = null
    window.dispatchEvent(new Event('logged-out'))
  }
  throw Object.assign(new Error(told.message ?? `status ${response.status}`), { status: response.status, code: told.code })
}

export const get = (path) => ask('GET', `/api/v3${path}`)
export const post = (path, body) => ask('POST', `/api/v3${path}`, body)
export const put = (path, body) => ask('PUT', `/api/v3${path}`, body)
export const remove = (path) => ask('DELETE', `/api/v3${path}`)

export const who = () => ask('GET', '/session')
export const logIn = (username, password) => ask('POST', '/session', { username, password })
export const logOut = () => ask('DELETE', '/session')
export const changePassword = (old, wanted) => ask('PUT', '/session/password', { old, new: wanted })
