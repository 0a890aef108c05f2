package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// What the kernel knows of the server's process. Linux only, as the figures are.

const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on

// cpuSeconds of all threads of a process: utime and stime, fields 14 and 15 of /proc/PID/stat.
func cpuSeconds(pid int) float64 {
	if pid == 0 {
		return 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is a name in brackets and may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond
}

// memory in MiB: RssAnon and RssFile of /proc/PID/status.
func memory(pid int) (anon, file float64) {
	if pid == 0 {
		return 0, 0
	}
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(data), "\n") {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "RssAnon:":
			anon = round(kb / 1024)
		case "RssFile:":
			file = round(kb / 1024)
		}
	}
	return anon, file
}
