package mqlog.clients;

import com.alibaba.fastjson.JSONArray;
import com.alibaba.fastjson.JSONObject;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageQueue;

/** Commands about lite pull consumers, and about the older pull API. */
final class PullConsumers {
    private final Map<String, DefaultLitePullConsumer> lite = new ConcurrentHashMap<>();
    private final Map<String, DefaultMQPullConsumer> pull = new ConcurrentHashMap<>();

    /** Null if it is no command of this kind. */
    JSONObject run(String command, JSONObject call) throws Exception {
        if (command.startsWith("lite")) {
            return command.equals("lite") ? startLite(call) : runLite(command, lite.get(call.getString("client")), call);
        }
        if (command.startsWith("pull")) {
            return command.equals("pull") ? startPull(call) : runPull(command, pull.get(call.getString("client")), call);
        }
        return null;
    }

    /** Subscribes to "topic" where there are "tags", else waits for queues to be assigned. */
    private JSONObject startLite(JSONObject call) throws Exception {
        String name = call.getString("client");
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(call.getString("group"));
        consumer.setNamesrvAddr(call.getString("namesrv"));
        consumer.setInstanceName(name);
        consumer.setHeartbeatBrokerInterval(Consumers.HEARTBEAT_MS);
        consumer.setAutoCommit(false);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        if (call.containsKey("tags")) {
            consumer.setAllocateMessageQueueStrategy(new Consumers.Told(name));
            consumer.subscribe(call.getString("topic"), call.getString("tags"));
        }
        consumer.start();
        lite.put(name, consumer);
        return new JSONObject();
    }

    private JSONObject runLite(String command, DefaultLitePullConsumer consumer, JSONObject call) throws Exception {
        switch (command) {
            case "lite_assign":
                consumer.assign(consumer.fetchMessageQueues(call.getString("topic")));
                return new JSONObject();
            case "lite_poll":
                return new JSONObject().fluentPut("messages", Messages.received(consumer.poll(call.getLongValue("ms"))));
            case "lite_seek": {
                MessageQueue queue = queue(consumer.fetchMessageQueues(call.getString("topic")), call);
                if (call.containsKey("offset")) {
                    consumer.seek(queue, call.getLongValue("offset"));
                } else if (call.getString("to").equals("begin")) {
                    consumer.seekToBegin(queue);
                } else {
                    consumer.seekToEnd(queue);
                }
                return new JSONObject();
            }
            case "lite_by_time": {
                MessageQueue queue = queue(consumer.fetchMessageQueues(call.getString("topic")), call);
                return new JSONObject().fluentPut("offset", consumer.offsetForTimestamp(queue, call.getLong("ms")));
            }
            case "lite_committed": {
                MessageQueue queue = queue(consumer.fetchMessageQueues(call.getString("topic")), call);
                return new JSONObject().fluentPut("offset", consumer.committed(queue));
            }
            case "lite_commit":
                consumer.commitSync();
                return new JSONObject();
            case "lite_end":
                lite.remove(call.getString("client")).shutdown();
                return new JSONObject();
            default:
                return null;
        }
    }

    private JSONObject startPull(JSONObject call) throws Exception {
        String name = call.getString("client");
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(call.getString("group"));
        consumer.setNamesrvAddr(call.getString("namesrv"));
        consumer.setInstanceName(name);
        consumer.start();
        pull.put(name, consumer);
        return new JSONObject();
    }

    private JSONObject runPull(String command, DefaultMQPullConsumer consumer, JSONObject call) throws Exception {
        if (command.equals("pull_end")) {
            pull.remove(call.getString("client")).shutdown();
            return new JSONObject();
        }
        Collection<MessageQueue> queues = consumer.fetchSubscribeMessageQueues(call.getString("topic"));
        switch (command) {
            case "pull_queues": {
                List<Integer> ids = new ArrayList<>();
                queues.forEach(queue -> ids.add(queue.getQueueId()));
                return new JSONObject().fluentPut("queues", new JSONArray(new ArrayList<>(ids)));
            }
            case "pull_offsets": {
                MessageQueue queue = queue(queues, call);
                return new JSONObject().fluentPut("min", consumer.minOffset(queue)).fluentPut("max", consumer.maxOffset(queue))
                    .fluentPut("stored", consumer.fetchConsumeOffset(queue, true));
            }
            case "pull_by_time":
                return new JSONObject().fluentPut("offset", consumer.searchOffset(queue(queues, call), call.getLongValue("ms")));
            case "pull_store":
                consumer.updateConsumeOffset(queue(queues, call), call.getLongValue("offset"));
                consumer.getOffsetStore().persistAll(new java.util.HashSet<>(queues));
                return new JSONObject();
            case "pull_read": {
                MessageQueue queue = queue(queues, call);
                PullResult result = call.getBooleanValue("wait")
                    ? consumer.pullBlockIfNotFound(queue, call.getString("tags"), call.getLongValue("offset"), 32)
                    : consumer.pull(queue, call.getString("tags"), call.getLongValue("offset"), 32);
                JSONObject told = new JSONObject().fluentPut("status", result.getPullStatus().name())
                    .fluentPut("next", result.getNextBeginOffset()).fluentPut("min", result.getMinOffset())
                    .fluentPut("max", result.getMaxOffset());
                List<org.apache.rocketmq.common.message.MessageExt> found = result.getMsgFoundList();
                return told.fluentPut("messages", found == null ? new JSONArray() : Messages.received(found));
            }
            default:
                return null;
        }
    }

    private static MessageQueue queue(Collection<MessageQueue> queues, JSONObject call) {
        for (MessageQueue queue : queues) {
            if (queue.getQueueId() == call.getIntValue("queue")) {
                return queue;
            }
        }
        throw new IllegalArgumentException("the topic has no such queue");
    }
}
