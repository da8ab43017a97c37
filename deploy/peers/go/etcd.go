//go:build etcd

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const (
	batchValuesMax = 500
	pageBytes      = 2 << 20
	pageRecords    = 1000
)

// client keeps a stream under a prefix; its keys ascend, so that a range is read in order.
type client struct {
	client *clientv3.Client
	mine   string
	number int64
}

func open(servers []string) (target, error) {
	made, err := clientv3.New(clientv3.Config{
		Endpoints:          servers,
		DialTimeout:        answerTime,
		MaxCallSendMsgSize: 64 << 20,
	})
	if err != nil {
		return nil, err
	}
	mine := make([]byte, 4)
	if _, err := rand.Read(mine); err != nil {
		return nil, err
	}
	return &client{client: made, mine: hex.EncodeToString(mine)}, nil
}

func (c *client) append(stream string, value []byte) error {
	return c.appendMany(stream, [][]byte{value})
}

func (c *client) appendMany(stream string, values [][]byte) error {
	first := atomic.AddInt64(&c.number, int64(len(values))) - int64(len(values))
	puts := make([]clientv3.Op, len(values))
	for i, value := range values {
		key := fmt.Sprintf("%s/%s/%012d", stream, c.mine, first+int64(i))
		puts[i] = clientv3.OpPut(key, string(value))
	}
	limited, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	_, err := c.client.Txn(limited).Then(puts...).Commit()
	return err
}

func (c *client) read(stream string, count int, take func([]byte) bool, deadline float64) error {
	limited, cancel := until(deadline)
	defer cancel()
	end := clientv3.WithRange(clientv3.GetPrefixRangeEnd(stream + "/"))
	for key, limit := stream+"/", pageRecords; count > 0; {
		if limit > count {
			limit = count
		}
		page, err := c.client.Get(
			limited, key, end, clientv3.WithLimit(int64(limit)), clientv3.WithSerializable())
		if err != nil || len(page.Kvs) == 0 {
			return err
		}
		for _, pair := range page.Kvs {
			take(pair.Value)
		}
		count -= len(page.Kvs)
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		limit = pageRecords
		if most := pageBytes / (len(page.Kvs[0].Value) + 1); most < limit {
			limit = most
		}
	}
	return nil
}

func (c *client) follow(stream string, take func([]byte) bool, deadline float64) error {
	limited, cancel := until(deadline)
	defer cancel()
	for answer := range c.client.Watch(
		limited, stream+"/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := answer.Err(); err != nil {
			return err
		}
		for _, event := range answer.Events {
			if !take(event.Kv.Value) {
				return nil
			}
		}
	}
	return nil
}

func until(deadline float64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(
		context.Background(), time.Duration((deadline-monotonic())*1e9))
}

func (c *client) close() { c.client.Close() }
