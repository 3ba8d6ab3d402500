import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { loadConfig } from './config'
import './styles/base.css'
import './styles/chat.css'
import './styles/messages.css'
import { App } from './ui/app'

const root = createRoot(document.getElementById('root')!)

loadConfig().then(
  (config) => root.render(<StrictMode><App config={config} /></StrictMode>),
  () => root.render(<p className="boot" role="alert">gochat cannot be loaded right now. Reload the page to try again.</p>),
)
