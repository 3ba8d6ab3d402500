package layers

import (
	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
	"gochat/layers/task"
)

// seams are where tests put themselves between the parts of a process. Nil, as outside tests, leaves a part as it is.
type seams struct {
	toLogic   func(contract.Logic) contract.Logic // as api and connect call it
	logic     func(contract.LogicService) contract.LogicService
	queue     func(queue.Queue) queue.Queue
	toConnect func(task.Connects) task.Connects // as task calls it
	connect   func(contract.Connect) contract.Connect
}

func seam[T any](between func(T) T, part T) T {
	if between == nil {
		return part
	}
	return between(part)
}
