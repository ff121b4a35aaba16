package mqlog.clients;

import com.alibaba.fastjson.JSONArray;
import com.alibaba.fastjson.JSONObject;
import java.text.SimpleDateFormat;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Commands about push consumers. */
final class Consumers {
    /**
     * A client whose queues changed pulls with a newer version of its subscription, which the broker must have heard of by a heartbeat.
     * While the client sends another heartbeat it leaves that one out, and is refused until the next: with its default up to 30 seconds.
     */
    static final int HEARTBEAT_MS = 1000;

    private final Map<String, DefaultMQPushConsumer> consumers = new ConcurrentHashMap<>();

    /** Null if it is no command of this kind. */
    JSONObject run(String command, JSONObject call) throws Exception {
        switch (command) {
            case "push":
                return start(call);
            case "end_push":
                consumers.remove(call.getString("client")).shutdown();
                return new JSONObject();
            default:
                return null;
        }
    }

    private JSONObject start(JSONObject call) throws Exception {
        String name = call.getString("client");
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(call.getString("group"));
        consumer.setNamesrvAddr(call.getString("namesrv"));
        consumer.setInstanceName(name);
        consumer.setAllocateMessageQueueStrategy(new Told(name));
        // What was consumed is noted before the end.
        consumer.setAwaitTerminationMillisWhenShutdown(5000);
        consumer.setHeartbeatBrokerInterval(HEARTBEAT_MS);
        if (call.getBooleanValue("broadcast")) {
            Version.broadcast(consumer);
        }
        consumer.setConsumeFromWhere(ConsumeFromWhere.valueOf("CONSUME_FROM_" + call.getString("start")));
        if (call.containsKey("start_ms")) {
            consumer.setConsumeTimestamp(new SimpleDateFormat("yyyyMMddHHmmss").format(new Date(call.getLongValue("start_ms"))));
        }
        consumer.subscribe(call.getString("topic"), call.getString("tags"));
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                Main.say(Messages.received(message).fluentPut("of", name));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumers.put(name, consumer);
        consumer.start();
        return new JSONObject();
    }

    /** The client's own way to share queues, which says what it gave. */
    static final class Told implements AllocateMessageQueueStrategy {
        private final AllocateMessageQueueStrategy inner = new AllocateMessageQueueAveragely();
        private final String client;

        Told(String client) {
            this.client = client;
        }

        @Override
        public List<MessageQueue> allocate(String group, String clientId, List<MessageQueue> queues, List<String> clients) {
            List<MessageQueue> given = inner.allocate(group, clientId, queues, clients);
            JSONArray ids = new JSONArray();
            for (MessageQueue queue : given) {
                ids.add(queue.getQueueId());
            }
            // The topic of the group's retries is shared as well.
            if (!queues.get(0).getTopic().startsWith("%RETRY%")) {
                Main.say(new JSONObject().fluentPut("of", client).fluentPut("queues", ids).fluentPut("members", clients.size()));
            }
            return given;
        }

        @Override
        public String getName() {
            return inner.getName();
        }
    }
}
