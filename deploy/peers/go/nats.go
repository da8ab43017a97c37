//go:build nats

package main

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// batchValuesMax is the most that the server takes in an atomic batch.
const batchValuesMax = 1000

type client struct {
	connection *nats.Conn
	context    nats.JetStreamContext
}

func open(servers []string) (target, error) {
	connection, err := nats.Connect(
		servers[0],
		func(options *nats.Options) error { options.Servers = servers; return nil },
		nats.DontRandomize(),
		nats.ReconnectWait(50*time.Millisecond),
		nats.MaxReconnects(-1),
	)
	if err != nil {
		return nil, err
	}
	context, err := connection.JetStream(nats.MaxWait(answerTime))
	return &client{connection, context}, err
}

func (c *client) append(stream string, value []byte) error {
	_, err := c.context.Publish(stream, value)
	return err
}

// appendMany is one atomic batch: acknowledged as a whole, with its last message.
func (c *client) appendMany(stream string, values [][]byte) error {
	batch := nuid.Next()
	message := func(i int) *nats.Msg {
		return &nats.Msg{Subject: stream, Data: values[i], Header: nats.Header{
			"Nats-Batch-Id":       {batch},
			"Nats-Batch-Sequence": {strconv.Itoa(i + 1)},
		}}
	}
	last := len(values) - 1
	for i := 0; i < last; i++ {
		if err := c.connection.PublishMsg(message(i)); err != nil {
			return err
		}
	}
	commit := message(last)
	commit.Header["Nats-Batch-Commit"] = []string{"1"}
	answer, err := c.connection.RequestMsg(commit, answerTime)
	if err != nil {
		return err
	}
	var told struct {
		Error *struct{ Description string }
	}
	if err := json.Unmarshal(answer.Data, &told); err != nil {
		return err
	}
	if told.Error != nil {
		return errors.New(told.Error.Description)
	}
	return nil
}

func (c *client) read(stream string, _ int, take func([]byte) bool, deadline float64) error {
	return c.follow(stream, take, deadline)
}

// follow is an ordered consumer: the server pushes, the client checks that nothing is missing.
func (c *client) follow(stream string, take func([]byte) bool, deadline float64) error {
	done := make(chan struct{})
	isDone := false
	subscription, err := c.context.Subscribe(stream, func(message *nats.Msg) {
		if !isDone && !take(message.Data) {
			isDone = true
			close(done)
		}
	}, nats.OrderedConsumer())
	if err != nil {
		return err
	}
	if err := subscription.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	select {
	case <-done:
	case <-time.After(time.Duration((deadline - monotonic()) * 1e9)):
	}
	return subscription.Unsubscribe()
}

func (c *client) close() { c.connection.Close() }
