/** Where the page finds its servers. */
export interface Config {
  apiUrl: string
  websocketUrl: string
}

/** Reads /config.json. A URL that it leaves empty is the host of the page itself with the port it names. */
export async function loadConfig(): Promise<Config> {
  const response = await fetch('/config.json')
  if (!response.ok) throw new Error(`config.json: ${response.status}`)
  const c = (await response.json()) as { apiUrl: string; websocketUrl: string; apiPort: number; websocketPort: number }
  const { protocol, hostname } = window.location
  const secure = protocol === 'https:'
  return {
    apiUrl: c.apiUrl || `${protocol}//${hostname}:${c.apiPort}`,
    websocketUrl: c.websocketUrl || `${secure ? 'wss' : 'ws'}://${hostname}:${c.websocketPort}/ws`,
  }
}
