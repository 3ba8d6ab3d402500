package layers

import (
	"net"
	"strconv"

	"gochat/layers/internal/ids"
	"gochat/layers/logic"
	"gochat/layers/site"
)

// ids issues message ids under this process's node number.
func (p *process) ids() logic.IDs { return ids.New(p.member.Number) }

// sitePorts are where the page finds the API and the websocket: what this process has bound, else what it is
// configured to.
func (p *process) sitePorts() site.Ports {
	port := func(bound, configured string) int {
		if bound == "" {
			bound = configured
		}
		_, port, _ := net.SplitHostPort(bound)
		n, _ := strconv.Atoi(port) // 0 if there is none: the page then says that it cannot connect
		return n
	}
	return site.Ports{
		API:       port(p.bound.API, p.cfg.API.Listen),
		WebSocket: port(p.bound.WebSocket, p.cfg.Connect.WebSocket.Listen),
	}
}
