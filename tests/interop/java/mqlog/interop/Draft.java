package mqlog.interop;

import java.net.Inet6Address;
import java.net.InetSocketAddress;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.zip.CRC32;

/** One message before it is stored. */
final class Draft {
    String topic;
    int queueId;
    int flag;
    int sysFlag;
    long bornMs;
    InetSocketAddress bornHost;
    InetSocketAddress storeHost;
    int reconsumeTimes;
    long preparedTransactionOffset;
    byte[] body;
    final Map<String, String> properties = new LinkedHashMap<>();

    /** The acknowledgement of this message: what was asked for, and where RocketMQ says that it put it. */
    Json acknowledged(Place place) {
        CRC32 crc = new CRC32();
        crc.update(body);
        boolean bornV6 = bornHost.getAddress() instanceof Inet6Address;
        boolean storeV6 = storeHost.getAddress() instanceof Inet6Address;
        return new Json()
            .put("log_offset", place.logOffset)
            .put("record_bytes", place.recordBytes)
            .put("magic", topic.length() > 127 ? "v2" : "v1")
            .put("body_crc", crc.getValue() & 0x7FFFFFFF)
            .put("queue_id", queueId)
            .put("flag", flag)
            .put("queue_offset", place.queueOffset)
            .put("sys_flag", sysFlag | (bornV6 ? 0x10 : 0) | (storeV6 ? 0x20 : 0))
            .put("born_ms", bornMs)
            .put("born_host", Bytes.host(bornHost))
            .put("store_ms", place.storeMs)
            .put("store_host", Bytes.host(storeHost))
            .put("reconsume_times", reconsumeTimes)
            .put("prepared_transaction_offset", preparedTransactionOffset)
            .put("body_hex", Bytes.hex(body))
            .put("topic", topic)
            .put("properties", properties)
            .put("message_id", place.messageId);
    }

    /** Where a message was stored. */
    static final class Place {
        long logOffset;
        long recordBytes;
        long queueOffset;
        long storeMs;
        String messageId;
    }
}
