import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: '../dist',
    // Takes the tracked .keep with it, which public/.keep brings back.
    emptyOutDir: true,
    // Assets as files of their own: the policy of the site allows nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // The page asks its own host for /config.json, which the site answers; in development that is another port.
    proxy: { '/config.json': 'http://127.0.0.1:8080' },
  },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
})
