package mqlog.interop;

import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.GetMessageStatus;
import org.apache.rocketmq.store.QueryMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;

/**
 * Prints what the store shows of the log below {@code end}, in three ways: {@code "by":"log"} has all fields of each record,
 * {@code "by":"queue"} and {@code "by":"key"} say which records they found; {@code record_sha256} is that of all its bytes.
 */
final class Reader {
    private static final int BLANK_MAGIC = 0xCBD43194;
    private static final int V2_MAGIC = 0xDAA320AB;
    private static final int ROLLBACK = 0xC;

    private final DefaultMessageStore store;
    private final PrintStream out;
    private final long end;
    private final int logFileBytes;
    private final Map<Long, String> hashes = new HashMap<>();
    private final Map<String, TreeSet<String>> keys = new TreeMap<>();

    Reader(DefaultMessageStore store, PrintStream out, long end, int logFileBytes) {
        this.store = store;
        this.out = out;
        this.end = end;
        this.logFileBytes = logFileBytes;
    }

    void read() throws Exception {
        readLog();
        readQueues();
        for (Map.Entry<String, TreeSet<String>> topic : keys.entrySet()) {
            for (String key : topic.getValue()) {
                query(topic.getKey(), key);
            }
        }
        out.flush();
    }

    private void readLog() throws Exception {
        for (long offset = store.getMinPhyOffset(); offset < end; ) {
            byte[] head = bytes(store.selectOneMessageByOffset(offset, 8));
            ByteBuffer fields = ByteBuffer.wrap(head);
            int size = fields.getInt();
            int magic = fields.getInt();
            if (magic == BLANK_MAGIC) {
                offset += logFileBytes - offset % logFileBytes;
                continue;
            }
            MessageExt message = store.lookMessageByOffset(offset);
            if (message == null) {
                throw new IllegalStateException("no message at log offset " + offset);
            }
            byte[] record = bytes(store.selectOneMessageByOffset(offset, size));
            hashes.put(offset, Bytes.sha256(record));
            if ((message.getSysFlag() & ROLLBACK) != ROLLBACK) {
                collectKeys(message);
            }
            out.println(show(message, magic).put("record_sha256", hashes.get(offset)));
            offset += size;
        }
    }

    private static Json show(MessageExt message, int magic) {
        byte[] body = message.getBody() == null ? new byte[0] : message.getBody();
        return new Json()
            .put("by", "log")
            .put("log_offset", message.getCommitLogOffset())
            .put("record_bytes", message.getStoreSize())
            .put("magic", magic == V2_MAGIC ? "v2" : "v1")
            .put("body_crc", message.getBodyCRC())
            .put("queue_id", message.getQueueId())
            .put("flag", message.getFlag())
            .put("queue_offset", message.getQueueOffset())
            .put("sys_flag", message.getSysFlag())
            .put("born_ms", message.getBornTimestamp())
            .put("born_host", Bytes.host(message.getBornHost()))
            .put("store_ms", message.getStoreTimestamp())
            .put("store_host", Bytes.host(message.getStoreHost()))
            .put("reconsume_times", message.getReconsumeTimes())
            .put("prepared_transaction_offset", message.getPreparedTransactionOffset())
            .put("body_hex", Bytes.hex(body))
            .put("topic", message.getTopic())
            .put("properties", properties(message))
            .put("message_id", message.getMsgId());
    }

    private void collectKeys(MessageExt message) {
        TreeSet<String> ofTopic = keys.computeIfAbsent(message.getTopic(), topic -> new TreeSet<>());
        String words = properties(message).getOrDefault("KEYS", "");
        for (String key : (words + " " + properties(message).getOrDefault("UNIQ_KEY", "")).split(" ")) {
            if (!key.isEmpty()) {
                ofTopic.add(key);
            }
        }
    }

    private void readQueues() throws Exception {
        for (Map.Entry<String, ? extends Map<Integer, ?>> topic : new TreeMap<>(Release.queues(store)).entrySet()) {
            for (int queueId : new TreeSet<>(topic.getValue().keySet())) {
                readQueue(topic.getKey(), queueId);
            }
        }
    }

    private void readQueue(String topic, int queueId) throws Exception {
        long min = store.getMinOffsetInQueue(topic, queueId);
        long max = store.getMaxOffsetInQueue(topic, queueId);
        for (long offset = min; offset < max; ) {
            GetMessageResult result = store.getMessage("interop", topic, queueId, offset, 32, null);
            try {
                if (result.getStatus() != GetMessageStatus.FOUND) {
                    throw new IllegalStateException(topic + "/" + queueId + " at " + offset + ": " + result.getStatus());
                }
                for (ByteBuffer buffer : result.getMessageBufferList()) {
                    byte[] record = Bytes.copy(buffer);
                    long[] entry = Release.entry(store, topic, queueId, offset);
                    if (entry[0] < end) {
                        out.println(new Json().put("by", "queue").put("topic", topic).put("queue_id", queueId)
                            .put("queue_offset", offset).put("log_offset", entry[0]).put("record_bytes", entry[1])
                            .put("tags_code", entry[2]).put("record_sha256", Bytes.sha256(record)));
                    }
                    offset++;
                }
                if (offset != result.getNextBeginOffset()) {
                    throw new IllegalStateException(topic + "/" + queueId + " goes on at " + result.getNextBeginOffset());
                }
            } finally {
                result.release();
            }
        }
    }

    /** RocketMQ's query finds hashes: other keys with the same one are left out here. Its last ones come first. */
    private void query(String topic, String key) throws Exception {
        QueryMessageResult result = store.queryMessage(topic, key, 1_000_000, 0, System.currentTimeMillis() + 3_600_000);
        List<ByteBuffer> buffers = result.getMessageBufferList();
        LinkedHashSet<Long> offsets = new LinkedHashSet<>();
        try {
            for (int i = buffers.size() - 1; i >= 0; i--) {
                byte[] record = Bytes.copy(buffers.get(i));
                MessageExt message = MessageDecoder.decode(ByteBuffer.wrap(record), false, false);
                long offset = message.getCommitLogOffset();
                if (offset >= end || !hasKey(message, topic, key)) {
                    continue;
                }
                if (!Bytes.sha256(record).equals(hashes.get(offset))) {
                    throw new IllegalStateException("query for " + key + " gives other bytes at " + offset);
                }
                offsets.add(offset);
            }
        } finally {
            result.release();
        }
        out.println(new Json().put("by", "key").put("topic", topic).put("key", key).put("log_offsets", new ArrayList<>(offsets)));
    }

    private static boolean hasKey(MessageExt message, String topic, String key) {
        String words = properties(message).getOrDefault("KEYS", "");
        return message.getTopic().equals(topic)
            && (key.equals(properties(message).get("UNIQ_KEY")) || List.of(words.split(" ")).contains(key));
    }

    /** A record without properties decodes to a message without a map. */
    private static Map<String, String> properties(MessageExt message) {
        return message.getProperties() == null ? Map.of() : message.getProperties();
    }

    private static byte[] bytes(SelectMappedBufferResult selected) {
        if (selected == null) {
            throw new IllegalStateException("the log ends before its end");
        }
        try {
            return Bytes.copy(selected.getByteBuffer());
        } finally {
            selected.release();
        }
    }
}
