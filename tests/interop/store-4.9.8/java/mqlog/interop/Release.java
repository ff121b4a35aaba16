package mqlog.interop;

import java.util.Map;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.store.ConsumeQueue;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.MessageExtBrokerInner;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** What differs between the versions of RocketMQ: this is 4.9.8. */
final class Release {
    /** Records with a topic of more than 127 characters came with 5.0. */
    static final boolean LONG_TOPICS = false;

    private Release() {
    }

    /** 4.9.8 has no record CRC: it keeps the property as any other. */
    static void recordCrc(MessageStoreConfig config, boolean on) {
    }

    static DefaultMessageStore create(MessageStoreConfig config) throws Exception {
        return new DefaultMessageStore(config, new BrokerStatsManager("interop", false), null, new BrokerConfig());
    }

    static MessageExt newMessage() {
        return new MessageExtBrokerInner();
    }

    static PutMessageResult put(DefaultMessageStore store, MessageExt message, String properties) {
        MessageExtBrokerInner inner = (MessageExtBrokerInner) message;
        inner.setPropertiesString(properties);
        inner.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(null, message.getTags()));
        return store.putMessage(inner);
    }

    static Map<String, ? extends Map<Integer, ?>> queues(DefaultMessageStore store) {
        return store.getConsumeQueueTable();
    }

    /** The entry's log offset, record size and tags code (of its extension unit, where it has one), or null. */
    static long[] entry(DefaultMessageStore store, String topic, int queueId, long index) {
        ConsumeQueue queue = store.findConsumeQueue(topic, queueId);
        SelectMappedBufferResult buffer = queue.getIndexBuffer(index);
        if (buffer == null) {
            return null;
        }
        try {
            long offset = buffer.getByteBuffer().getLong();
            int size = buffer.getByteBuffer().getInt();
            long tagsCode = buffer.getByteBuffer().getLong();
            if (queue.isExtAddr(tagsCode)) {
                tagsCode = queue.getExt(tagsCode).getTagsCode();
            }
            return new long[] {offset, size, tagsCode};
        } finally {
            buffer.release();
        }
    }
}
