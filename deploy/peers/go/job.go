// A load's worker process on a peer, in Go: the same lines in and out as cute_logger.node.cli.bench.worker.
//
//	stdin:  the job, one line of JSON      stdout:  ready
//	        the common start, seconds               the share, one line of JSON
//
// job.go has the lines and what they hold, loads.go the work, nats.go and etcd.go the clients; one of
// these two is built in, by the tag of its name.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

type settings struct {
	ValueBytes int     `json:"value_bytes"`
	Streams    int     `json:"streams"`
	Seconds    float64 `json:"seconds"`
	WarmUpS    float64 `json:"warm_up_s"`
	Rate       float64 `json:"rate"`
	BatchBytes int     `json:"batch_bytes"`
	InFlight   int     `json:"in_flight"`
}

type job struct {
	Kind    string   `json:"kind"`
	Role    string   `json:"role"`
	Servers []string `json:"servers"`
	Streams []string `json:"streams"`
	Case    settings `json:"case"`
	Rate    float64  `json:"rate"`
	Records int      `json:"records"`
}

// share is what this process counted; its methods may be called from any goroutine.
type share struct {
	lock      sync.Mutex
	Records   int       `json:"records"`
	Total     int       `json:"total"`
	Errors    int       `json:"errors"`
	Error     *string   `json:"error"`
	Seconds   float64   `json:"seconds"`
	CPUS      float64   `json:"cpu_s"`
	Latencies histogram `json:"latencies"`
}

// count adds records that are done; those inside the measured time have a latency, in seconds.
func (s *share) count(records int, isInside bool, latency float64) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.Total += records
	if isInside {
		s.Records += records
		s.Latencies.add(latency)
	}
}

func (s *share) fail(failure error, records int) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.Errors += records
	if s.Error == nil {
		text := fmt.Sprintf("%T: %v", failure, failure)
		s.Error = &text
	}
}

// histogram has the buckets of cute_logger.node.cli.bench.histogram: powers of 1.01, of microseconds.
type histogram struct {
	counts map[int]int
	sum    float64
	max    float64
}

func (h *histogram) add(seconds float64) {
	if h.counts == nil {
		h.counts = map[int]int{}
	}
	micros := math.Max(seconds*1e6, 1)
	h.counts[int(math.Log(micros)/math.Log(1.01))]++
	h.sum += seconds
	h.max = math.Max(h.max, seconds)
}

func (h histogram) MarshalJSON() ([]byte, error) {
	counts := [][2]int{}
	for bucket, count := range h.counts {
		counts = append(counts, [2]int{bucket, count})
	}
	return json.Marshal(map[string]any{"counts": counts, "sum_s": h.sum, "max_s": h.max})
}

var clockBegun, clockAtBegin = time.Now(), rawMonotonic()

// monotonic is Python's time.monotonic(): CLOCK_MONOTONIC, which all processes share.
func monotonic() float64 {
	return clockAtBegin + time.Since(clockBegun).Seconds()
}

func rawMonotonic() float64 {
	const clockMonotonic = 1
	var at syscall.Timespec
	_, _, code := syscall.Syscall(
		syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&at)), 0)
	if code != 0 {
		panic(code)
	}
	return float64(at.Sec) + float64(at.Nsec)/1e9
}

// sleepUntil is exact: a runtime timer of an idle process fires at whole milliseconds only.
func sleepUntil(moment float64) {
	for {
		left := moment - monotonic()
		if left <= 0 {
			return
		}
		request := syscall.NsecToTimespec(int64(left * 1e9))
		syscall.Nanosleep(&request, nil)
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	var work job
	if err := json.Unmarshal([]byte(line(lines)), &work); err != nil {
		panic(err)
	}
	targets, err := openTargets(&work)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	start, err := strconv.ParseFloat(strings.TrimSpace(line(lines)), 64)
	if err != nil {
		panic(err)
	}
	done := run(&work, targets, start)
	for _, each := range targets {
		each.close()
	}
	answer, err := json.Marshal(done)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(answer))
}

func line(lines *bufio.Reader) string {
	text, err := lines.ReadString('\n')
	if err != nil {
		os.Exit(1) // whoever started this is gone
	}
	return text
}
