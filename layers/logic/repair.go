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

func (l *Logic) DirectHeads(ctx context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
	if len(r.Users) > contract.MaxHeads {
		return nil, contract.Errorf(contract.BadRequest, "want at most %d users", contract.MaxHeads)
	}
	heads, err := l.deps.Store.DirectHeads(ctx, r.Users)
	if err != nil {
		return nil, fmt.Errorf("load heads of users: %w", err)
	}
	return &contract.DirectHeadsReply{Heads: heads}, nil
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
	after := r.After
	if !r.Since.IsZero() {
		if after, err = l.deps.Store.LastBefore(ctx, r.Conversation, r.Since, r.Before); err != nil {
			return nil, fmt.Errorf("load where to begin: %w", err)
		}
	}
	messages, _, err := l.deps.Store.History(ctx, r.Conversation, after, 0, limit)
	if err != nil {
		return nil, fmt.Errorf("load deliveries: %w", err)
	}
	reply := &contract.DeliveriesReply{Deliveries: make([]contract.Delivery, len(messages))}
	for i := range messages {
		reply.Deliveries[i] = messageDelivery(&messages[i], "", messages[i].CreatedAt)
	}
	return reply, nil
}
