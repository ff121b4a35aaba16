package mqlog.clients;

import com.alibaba.fastjson.JSONObject;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * RocketMQ's clients behind a line protocol. A line on standard input is a JSON object with a command "do" and a number "call"; each is
 * carried out on a thread of its own and answered by a line with that number. What comes unasked, above all messages that a consumer got,
 * is a line with "of", the name of the client. The end of the input ends the program.
 */
public final class Main {
    private static final PrintStream OUT =
        new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

    private Main() {}

    public static void main(String[] args) throws Exception {
        // Libraries that print must not be taken for answers.
        System.setOut(System.err);
        Producers producers = new Producers();
        Consumers consumers = new Consumers();
        PullConsumers pullConsumers = new PullConsumers();
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JSONObject call = JSONObject.parseObject(line);
            threads.execute(() -> {
                JSONObject answer;
                try {
                    String command = call.getString("do");
                    answer = producers.run(command, call);
                    answer = answer != null ? answer : consumers.run(command, call);
                    answer = answer != null ? answer : pullConsumers.run(command, call);
                    answer = answer != null ? answer : new JSONObject().fluentPut("error", "there is no command " + command);
                } catch (Throwable failure) {
                    answer = Messages.failure(failure);
                }
                say(answer.fluentPut("call", call.getLong("call")));
            });
        }
        System.exit(0);
    }

    /** Prints a line that no other thread divides. */
    static void say(JSONObject line) {
        String text = line.toJSONString();
        synchronized (OUT) {
            OUT.println(text);
            OUT.flush();
        }
    }
}
