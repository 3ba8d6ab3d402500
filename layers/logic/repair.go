package logic

import (
	"context"
	"fmt"

	"gochat/layers/internal/contract"
)

func (l *Logic) ConversationHeads(ctx context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
	if len(r.Conversations) > contract.MaxHeads {
		return nil, contract.Errorf(contract.BadRequest, "want at most %d conversations", contract.MaxHeads)
	}
	heads, err := l.deps.Store.Heads(ctx, r.Conversations)
	if err != nil {
		return nil, fmt.Errorf("load heads: %w", err)
	}
	return &contract.HeadsReply{Heads: heads}, nil
}

func (l *Logic) Deliveries(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
	if _, err := r.Conversation.Parse(); err != nil {
		return nil, err
	}
	if r.After < 0 {
		return nil, contract.Errorf(contract.BadRequest, "after: want 0 or more")
	}
	limit, err := page(r.Limit, contract.MaxPage)
	if err != nil {
		return nil, err
	}
	messages, _, err := l.deps.Store.History(ctx, r.Conversation, r.After, 0, limit)
	if err != nil {
		return nil, fmt.Errorf("load deliveries: %w", err)
	}
	reply := &contract.DeliveriesReply{Deliveries: make([]contract.Delivery, len(messages))}
	for i := range messages {
		reply.Deliveries[i] = messageDelivery(&messages[i], "", messages[i].CreatedAt)
	}
	return reply, nil
}
