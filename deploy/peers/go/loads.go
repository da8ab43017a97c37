package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	poolBytes   = 4 << 20
	underWayMax = 4096
	dueBytes    = 8
	graceS      = 30.0
	answerTime  = 10 * time.Second
)

// target is one client of the system; append and appendMany return when all is acknowledged.
type target interface {
	append(stream string, value []byte) error
	appendMany(stream string, values [][]byte) error
	// read takes the oldest count values, follow all from the oldest on until take says false. Both
	// give up at the deadline, which is of the monotonic clock.
	read(stream string, count int, take func(value []byte) bool, deadline float64) error
	follow(stream string, take func(value []byte) bool, deadline float64) error
	close()
}

type window struct{ start, begin, end float64 }

func (w window) has(moment float64) bool { return w.begin <= moment && moment < w.end }

// openTargets gives producers one client together, and every reader one of its own.
func openTargets(work *job) ([]target, error) {
	count := 1
	if work.Role == "read" {
		count = len(work.Streams)
	}
	targets := make([]target, 0, count)
	for i := 0; i < count; i++ {
		first := i % len(work.Servers)
		servers := append(append([]string{}, work.Servers[first:]...), work.Servers[:first]...)
		each, err := open(servers)
		if err != nil {
			return nil, err
		}
		targets = append(targets, each)
	}
	return targets, nil
}

func run(work *job, targets []target, start float64) *share {
	begin := start + work.Case.WarmUpS
	measured := window{start, begin, begin + work.Case.Seconds}
	counted := &share{}
	cpu := cpuSeconds()
	sleepUntil(start)
	if work.Role == "produce" && (work.Kind == "fixed-rate" || work.Kind == "tail") {
		pace(targets[0], work, measured, counted)
	} else {
		var all sync.WaitGroup
		for i, stream := range work.Streams {
			i, stream := i, stream
			all.Add(1)
			go func() {
				defer all.Done()
				one(targets[i%len(targets)], stream, work, measured, counted)
			}()
		}
		all.Wait()
	}
	counted.Seconds = monotonic() - start
	counted.CPUS = cpuSeconds() - cpu
	return counted
}

func one(to target, stream string, work *job, measured window, counted *share) {
	switch {
	case work.Role == "read" && work.Kind == "tail":
		follow(to, stream, work, measured, counted)
	case work.Role == "read":
		catchUp(to, stream, work, measured, counted)
	case work.Kind == "one-in-flight":
		for next := valuesOf(work.Case.ValueBytes); ; {
			since := monotonic()
			if since >= measured.end {
				return
			}
			appendOne(to, stream, next(), since, measured, counted)
		}
	default:
		pipeline(to, stream, work, measured, counted)
	}
}

// valuesOf gives values of random bytes for ever, a new one each time until 4 MiB are made.
func valuesOf(valueBytes int) func() []byte {
	count := poolBytes / valueBytes
	if count > 1024 {
		count = 1024
	}
	if count < 1 {
		count = 1
	}
	pool := make([][]byte, count)
	for i := range pool {
		pool[i] = make([]byte, valueBytes)
		if _, err := rand.Read(pool[i]); err != nil {
			panic(err)
		}
	}
	at := 0
	return func() []byte {
		at = (at + 1) % len(pool)
		return pool[at]
	}
}

func appendOne(to target, stream string, value []byte, since float64, w window, counted *share) {
	if err := to.append(stream, value); err != nil {
		counted.fail(err, 1)
		time.Sleep(10 * time.Millisecond)
		return
	}
	counted.count(1, w.has(since), monotonic()-since)
}

func valuesPerSend(work *job) int {
	count := work.Case.BatchBytes / work.Case.ValueBytes
	if count > batchValuesMax {
		count = batchValuesMax
	}
	if count < 1 {
		count = 1
	}
	return count
}

// pipeline keeps several batches under way until the time is up, or for a fill all records are sent.
func pipeline(to target, stream string, work *job, measured window, counted *share) {
	next := valuesOf(work.Case.ValueBytes)
	step := valuesPerSend(work)
	room := make(chan struct{}, work.Case.InFlight)
	var all sync.WaitGroup
	for sent := 0; ; {
		count := step
		if work.Records > 0 && work.Records-sent < step {
			count = work.Records - sent
		}
		if count == 0 || work.Records == 0 && monotonic() >= measured.end {
			break
		}
		values := make([][]byte, count)
		for i := range values {
			values[i] = next()
		}
		sent += count
		since := monotonic()
		room <- struct{}{}
		all.Add(1)
		go func() {
			defer all.Done()
			err := to.appendMany(stream, values)
			<-room
			if err != nil {
				counted.fail(err, len(values))
				return
			}
			now := monotonic()
			counted.count(len(values), measured.has(now), now-since)
		}()
	}
	all.Wait()
}

// pace appends at fixed times, whether or not earlier appends are done.
func pace(to target, work *job, measured window, counted *share) {
	next := valuesOf(work.Case.ValueBytes)
	count := int(math.RoundToEven(work.Rate * (measured.end - measured.start)))
	if work.Kind == "tail" { // its readers wait for as many of each stream
		each := work.Case.Rate * (work.Case.WarmUpS + work.Case.Seconds) / float64(work.Case.Streams)
		count = int(math.Max(1, math.RoundToEven(each))) * len(work.Streams)
	}
	underWay := make(chan struct{}, underWayMax)
	var all sync.WaitGroup
	for i := 0; i < count; i++ {
		due := measured.start + float64(i)/work.Rate
		sleepUntil(due)
		value := next()
		if work.Kind == "tail" {
			value = stamped(value, due)
		}
		stream := work.Streams[i%len(work.Streams)]
		underWay <- struct{}{}
		all.Add(1)
		go func() {
			defer all.Done()
			appendOne(to, stream, value, due, measured, counted)
			<-underWay
		}()
	}
	all.Wait()
}

// stamped is a copy of the value with the time it was due in its first eight bytes.
func stamped(value []byte, due float64) []byte {
	copied := append([]byte{}, value...)
	binary.LittleEndian.PutUint64(copied, math.Float64bits(due))
	return copied
}

func follow(to target, stream string, work *job, measured window, counted *share) {
	missing := work.Records
	take := func(value []byte) bool {
		due := math.Float64frombits(binary.LittleEndian.Uint64(value[:dueBytes]))
		counted.count(1, measured.has(due), monotonic()-due)
		missing--
		return missing > 0
	}
	err := to.follow(stream, take, measured.end+graceS)
	if err == nil && missing > 0 {
		err = fmt.Errorf("%d records of %s did not reach a reader", missing, stream)
	}
	if err != nil {
		counted.fail(err, missing)
	}
}

func catchUp(to target, stream string, work *job, measured window, counted *share) {
	count := 0
	take := func([]byte) bool {
		count++
		return count < work.Records
	}
	err := to.read(stream, work.Records, take, measured.end+graceS)
	if err == nil && count != work.Records {
		err = fmt.Errorf("%s: %d of %d records read", stream, count, work.Records)
	}
	if err != nil {
		counted.fail(err, 1)
	}
	counted.lock.Lock()
	defer counted.lock.Unlock()
	counted.Records += count
	counted.Total += count
}
