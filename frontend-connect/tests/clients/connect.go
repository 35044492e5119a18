// Connect opens a tunnel the way kube-apiserver's HTTPConnect dialer does, and echoes a word through it.
//
// Usage: connect tcp|unix PROXY TARGET
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(network, proxy, target string) error {
	conn, err := net.Dial(network, proxy)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", target); err != nil {
		return err
	}
	reader := bufio.NewReader(io.LimitReader(conn, 1<<20))
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s", response.Status, trim(body))
	}
	if buffered := reader.Buffered(); buffered > 0 {
		return fmt.Errorf("%d bytes are buffered behind the response", buffered)
	}
	return echo(conn)
}

// The end of each half has to reach the other side.
func echo(conn net.Conn) error {
	if _, err := conn.Write([]byte("echo\n")); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	_, err := io.Copy(os.Stdout, conn)
	return err
}

func trim(body []byte) string {
	for len(body) > 0 && body[len(body)-1] == '\n' {
		body = body[:len(body)-1]
	}
	return string(body)
}
