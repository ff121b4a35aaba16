// RocketMQ's Go client, for the suite in tests/clients: sends messages to a topic, by sync sends and one-way, and consumes all of
// them with a push consumer. Each message that was acknowledged or received is a line "acknowledged TEXT" or "received TEXT".
//
//	go run . NAMESRV TOPIC COUNT
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const group = "go"

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(namesrv, topic, countText string) error {
	rlog.SetLogLevel("error")
	count, err := strconv.Atoi(countText)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	sender, err := rocketmq.NewProducer(producer.WithNameServer([]string{namesrv}), producer.WithGroupName(group))
	if err != nil {
		return err
	}
	if err := sender.Start(); err != nil {
		return err
	}
	if err := send(out, sender, topic, count); err != nil {
		return err
	}
	if err := consume(out, namesrv, topic, 2*count); err != nil {
		return err
	}
	// Not earlier: this client does not mark one-way sends, so they are answered, and who closes a connection whose answers
	// are unread loses what the system has not sent yet.
	return sender.Shutdown()
}

// send sends count messages by sync sends, and as many one-way.
func send(out *bufio.Writer, sender rocketmq.Producer, topic string, count int) error {
	for number := 0; number < count; number++ {
		text := fmt.Sprintf("sync-%d", number)
		message := primitive.NewMessage(topic, []byte(text)).WithTag("go").WithKeys([]string{text})
		message.WithProperty("number", strconv.Itoa(number))
		result, err := sender.SendSync(context.Background(), message)
		if err != nil {
			return err
		}
		if result.Status != primitive.SendOK {
			return fmt.Errorf("%s: %s", text, result)
		}
		fmt.Fprintln(out, "acknowledged", text)
	}
	for number := 0; number < count; number++ {
		text := fmt.Sprintf("oneway-%d", number)
		message := primitive.NewMessage(topic, []byte(text)).WithTag("go").WithKeys([]string{text})
		message.WithProperty("number", strconv.Itoa(number))
		if err := sender.SendOneWay(context.Background(), message); err != nil {
			return err
		}
	}
	return nil
}

// consume receives until there are count messages, and a moment longer.
func consume(out *bufio.Writer, namesrv, topic string, count int) error {
	receiver, err := rocketmq.NewPushConsumer(consumer.WithNameServer([]string{namesrv}), consumer.WithGroupName(group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	if err != nil {
		return err
	}
	var lock sync.Mutex
	received := 0
	all := make(chan struct{})
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: "go"}
	take := func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		lock.Lock()
		defer lock.Unlock()
		for _, message := range messages {
			text := string(message.Body)
			if message.GetKeys() != text || message.GetProperty("number") == "" {
				text = "damaged " + text
			}
			fmt.Fprintln(out, "received", text)
			received++
			if received == count {
				close(all)
			}
		}
		return consumer.ConsumeSuccess, nil
	}
	if err := receiver.Subscribe(topic, selector, take); err != nil {
		return err
	}
	if err := receiver.Start(); err != nil {
		return err
	}
	select {
	case <-all:
		// That nothing comes twice can only be waited for.
		time.Sleep(time.Second)
	case <-time.After(60 * time.Second):
	}
	err = receiver.Shutdown()
	lock.Lock()
	defer lock.Unlock()
	return err
}
