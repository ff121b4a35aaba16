package mqlog.clients;

import com.alibaba.fastjson.JSONArray;
import com.alibaba.fastjson.JSONObject;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** Commands about producers. */
final class Producers {
    private final Map<String, DefaultMQProducer> producers = new ConcurrentHashMap<>();
    /** Those that flood, until they are told to stop. */
    private final Map<String, Boolean> flooding = new ConcurrentHashMap<>();

    /** Null if it is no command of this kind. */
    JSONObject run(String command, JSONObject call) throws Exception {
        switch (command) {
            case "producer":
                return start(call);
            case "create_topic":
                Version.createTopic(producer(call), call.getString("topic"), call.getIntValue("queues"));
                return new JSONObject();
            case "publish_queues":
                return new JSONObject().fluentPut("count", producer(call).fetchPublishMessageQueues(call.getString("topic")).size());
            case "send":
                return send(call);
            case "send_batch":
                return Messages.sent(producer(call).send(drafts(call)));
            case "flood":
                return flood(call);
            case "end_flood":
                flooding.remove(call.getString("client"));
                return new JSONObject();
            case "speed":
                return speed(call);
            case "end_producer":
                producers.remove(call.getString("client")).shutdown();
                return new JSONObject();
            default:
                return null;
        }
    }

    private DefaultMQProducer producer(JSONObject call) {
        return producers.get(call.getString("client"));
    }

    private JSONObject start(JSONObject call) throws Exception {
        String name = call.getString("client");
        DefaultMQProducer producer = new DefaultMQProducer("producers-" + name);
        producer.setNamesrvAddr(call.getString("namesrv"));
        producer.setInstanceName(name);
        if (call.containsKey("max_bytes")) {
            producer.setMaxMessageSize(call.getIntValue("max_bytes"));
        }
        if (call.containsKey("compress_over")) {
            producer.setCompressMsgBodyOverHowmuch(call.getIntValue("compress_over"));
        }
        producer.start();
        producers.put(name, producer);
        return new JSONObject();
    }

    private static List<Message> drafts(JSONObject call) {
        JSONArray drafts = call.getJSONArray("messages");
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < drafts.size(); i++) {
            messages.add(Messages.draft(call.getString("topic"), drafts.getJSONObject(i)));
        }
        return messages;
    }

    /** Sends one by one in the way "how", to "queue" if there is one; a result for each, none for those that are sent one-way. */
    private JSONObject send(JSONObject call) throws Exception {
        DefaultMQProducer producer = producer(call);
        String how = call.getString("how");
        List<Message> messages = drafts(call);
        MessageQueue queue = call.containsKey("queue") ? queue(producer, call) : null;
        JSONObject[] results = new JSONObject[messages.size()];
        CountDownLatch pending = new CountDownLatch(how.equals("async") ? results.length : 0);
        for (int i = 0; i < results.length; i++) {
            Message message = messages.get(i);
            try {
                if (how.equals("sync")) {
                    results[i] = Messages.sent(queue == null ? producer.send(message) : producer.send(message, queue));
                } else if (how.equals("async")) {
                    int at = i;
                    SendCallback callback = callback(result -> {
                        results[at] = result;
                        pending.countDown();
                    });
                    if (queue == null) {
                        producer.send(message, callback);
                    } else {
                        producer.send(message, queue, callback);
                    }
                } else if (queue == null) {
                    producer.sendOneway(message);
                } else {
                    producer.sendOneway(message, queue);
                }
            } catch (Exception failure) {
                results[i] = Messages.failure(failure);
            }
        }
        pending.await();
        return new JSONObject().fluentPut("results", new JSONArray(new ArrayList<>(java.util.Arrays.asList(results))));
    }

    private static MessageQueue queue(DefaultMQProducer producer, JSONObject call) throws Exception {
        for (MessageQueue queue : producer.fetchPublishMessageQueues(call.getString("topic"))) {
            if (queue.getQueueId() == call.getIntValue("queue")) {
                return queue;
            }
        }
        throw new IllegalArgumentException("the topic has no such queue");
    }

    private static SendCallback callback(java.util.function.Consumer<JSONObject> then) {
        return new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                then.accept(Messages.sent(result));
            }

            @Override
            public void onException(Throwable failure) {
                then.accept(Messages.failure(failure));
            }
        };
    }

    /** Sends messages with rising numbers as text, one after the other, until "end_flood"; says each acknowledgement. */
    private JSONObject flood(JSONObject call) throws Exception {
        DefaultMQProducer producer = producer(call);
        String name = call.getString("client");
        long failures = 0;
        long next = call.getLongValue("from");
        flooding.put(name, true);
        while (flooding.containsKey(name)) {
            String text = Long.toString(next++);
            Message message = new Message(call.getString("topic"), Messages.body(text + " ", call.getIntValue("size")));
            try {
                Main.say(Messages.sent(producer.send(message)).fluentPut("of", name).fluentPut("text", text));
            } catch (Exception failure) {
                failures++;
                // Nobody may be there: the client fails at once, as often as it is asked.
                Thread.sleep(20);
            }
        }
        return new JSONObject().fluentPut("failures", failures).fluentPut("sent", next - call.getLongValue("from"));
    }

    /** Threads that send as fast as they can: "how" is sync, or async with "window" sends in flight each. */
    private JSONObject speed(JSONObject call) throws Exception {
        DefaultMQProducer producer = producer(call);
        String topic = call.getString("topic");
        byte[] body = Messages.body("", call.getIntValue("size"));
        AtomicLong acknowledged = new AtomicLong();
        AtomicLong failed = new AtomicLong();
        long start = System.nanoTime();
        long end = start + call.getLongValue("ms") * 1_000_000;
        boolean isAsync = call.getString("how").equals("async");
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < call.getIntValue("producers"); i++) {
            Thread thread = new Thread(() -> {
                Semaphore window = new Semaphore(isAsync ? call.getIntValue("window") : 1);
                SendCallback callback = new SendCallback() {
                    @Override
                    public void onSuccess(SendResult result) {
                        acknowledged.incrementAndGet();
                        window.release();
                    }

                    @Override
                    public void onException(Throwable failure) {
                        failed.incrementAndGet();
                        window.release();
                    }
                };
                while (System.nanoTime() < end) {
                    window.acquireUninterruptibly();
                    try {
                        if (isAsync) {
                            producer.send(new Message(topic, body), callback);
                        } else {
                            callback.onSuccess(producer.send(new Message(topic, body)));
                        }
                    } catch (Exception failure) {
                        callback.onException(failure);
                    }
                }
                window.acquireUninterruptibly(isAsync ? call.getIntValue("window") : 1);
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        return new JSONObject().fluentPut("acknowledged", acknowledged.get()).fluentPut("failed", failed.get())
            .fluentPut("per_second", acknowledged.get() / seconds);
    }
}
